//! Whether a webhook is called for an object: its rules and selectors.

use serde_json::Value;

use super::Admission;
use crate::kubernetes::status::{self, Status};

impl Admission {
    pub(super) fn concerns(&self, webhook: &Value, object: &Value) -> Result<bool, Status> {
        if webhook["matchConditions"].as_array().is_some_and(|all| !all.is_empty()) {
            return Err(status::internal("matchConditions are not evaluated by this API server"));
        }
        let rules = webhook["rules"].as_array().into_iter().flatten();
        let ruled = rules.into_iter().any(|rule| self.rule(rule));
        Ok(ruled
            && selects(&webhook["namespaceSelector"], &self.namespace_labels)
            && selects(&webhook["objectSelector"], &object["metadata"]["labels"]))
    }

    fn rule(&self, rule: &Value) -> bool {
        let has = |field: &str, wanted: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).any(|item| item == "*" || item == wanted)
        };
        let scope = rule["scope"].as_str().unwrap_or("*");
        let scoped = match scope {
            "Namespaced" => self.resource.namespaced,
            "Cluster" => !self.resource.namespaced,
            _ => true,
        };
        has("operations", "CREATE")
            && has("apiGroups", self.resource.group)
            && has("apiVersions", self.resource.version)
            && (has("resources", self.resource.plural) || has("resources", "*/*"))
            && scoped
    }
}

/// A label selector; none, or an empty one, selects everything.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let among = |expression: &Value, label: &Value| {
        expression["values"].as_array().is_some_and(|values| values.contains(label))
    };
    equal.into_iter().all(|(key, value)| labels[key] == *value)
        && expressions.all(|expression| {
            let label = labels.get(expression["key"].as_str().unwrap_or_default());
            match expression["operator"].as_str().unwrap_or_default() {
                "In" => label.is_some_and(|label| among(expression, label)),
                "NotIn" => label.is_none_or(|label| !among(expression, label)),
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_choose_by_all_of_their_parts() {
        let labels = json!({ "a": "1", "b": "2" });
        let expression = |key: &str, operator: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        for (selector, wanted) in [
            (json!(null), true),
            (json!({}), true),
            (json!({ "matchLabels": { "a": "1" } }), true),
            (json!({ "matchLabels": { "a": "1", "b": "3" } }), false),
            (expression("a", "In", json!(["1"])), true),
            (expression("c", "In", json!(["1"])), false),
            (expression("a", "NotIn", json!(["1"])), false),
            (expression("c", "NotIn", json!(["1"])), true),
            (expression("a", "Exists", json!(null)), true),
            (expression("a", "DoesNotExist", json!(null)), false),
            (expression("c", "DoesNotExist", json!(null)), true),
        ] {
            assert_eq!(selects(&selector, &labels), wanted, "{selector}");
        }
        assert!(!selects(&expression("a", "Exists", json!(null)), &json!(null)));
    }
}
