//! Changes as documents: RFC 6902, which webhooks answer with, and RFC 7386.

use serde_json::{Map, Value};

/// Applies a JSON Patch; the error says which operation failed.
pub(super) fn json_patch(object: &mut Value, patch: &Value) -> Result<(), String> {
    let operations = patch.as_array().ok_or("a JSON patch is an array")?;
    for operation in operations {
        apply(object, operation).ok_or_else(|| format!("cannot apply {operation}"))?;
    }
    Ok(())
}

/// Applies a merge patch.
pub(super) fn merge_patch(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in patch {
        match value {
            Value::Null => {
                object.as_object_mut().map(|fields| fields.remove(name));
            }
            value => merge_patch(&mut object[name], value),
        }
    }
}

fn apply(object: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    match operation["op"].as_str()? {
        "add" => add(object, path, operation.get("value")?.clone()),
        "remove" => remove(object, path).map(drop),
        "replace" => {
            *object.pointer_mut(path)? = operation.get("value")?.clone();
            Some(())
        }
        "test" => (object.pointer(path)? == operation.get("value")?).then_some(()),
        "copy" => {
            let value = object.pointer(operation["from"].as_str()?)?.clone();
            add(object, path, value)
        }
        "move" => {
            let value = remove(object, operation["from"].as_str()?)?;
            add(object, path, value)
        }
        _ => None,
    }
}

fn add(object: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *object = value;
        return Some(());
    }
    let (parent, last) = split(object, path)?;
    match parent {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = last.parse().ok().filter(|at| *at <= items.len())?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(object, path)?;
    match parent {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => {
            let at = last.parse().ok().filter(|at| *at < items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

/// What holds the value at `path`, and under which name (RFC 6901).
fn split<'o>(object: &'o mut Value, path: &str) -> Option<(&'o mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((object.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches_are_applied_in_order_or_refused() {
        let mut pod = json!({ "a": { "b/c": [1, 2] } });
        let patch = json!([
            { "op": "test", "path": "/a/b~1c/0", "value": 1 },
            { "op": "add", "path": "/a/b~1c/1", "value": 9 },
            { "op": "add", "path": "/a/b~1c/-", "value": 3 },
            { "op": "add", "path": "/x", "value": {} },
            { "op": "move", "from": "/a", "path": "/x/y" },
            { "op": "remove", "path": "/x/y/b~1c/0" },
            { "op": "copy", "from": "/x/y/b~1c/0", "path": "/z" },
            { "op": "replace", "path": "/z", "value": "z" },
        ]);
        json_patch(&mut pod, &patch).unwrap();
        assert_eq!(pod, json!({ "x": { "y": { "b/c": [9, 2, 3] } }, "z": "z" }));
        for wrong in [
            json!({ "op": "add", "path": "/no/parent", "value": 1 }),
            json!({ "op": "remove", "path": "/none" }),
            json!({ "op": "replace", "path": "/none", "value": 1 }),
            json!({ "op": "test", "path": "/z", "value": "y" }),
            json!({ "op": "add", "path": "/x/y/b~1c/9", "value": 1 }),
        ] {
            assert!(json_patch(&mut pod, &json!([wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn merge_patches_replace_join_and_take_out() {
        let mut object = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
        merge_patch(&mut object, &json!({ "a": { "b": null, "e": 3 }, "d": [2] }));
        assert_eq!(object, json!({ "a": { "c": 2, "e": 3 }, "d": [2] }));
    }
}
