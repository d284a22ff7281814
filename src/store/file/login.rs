//! How a login reaches whoever owns the file: it leaves its record beside it (`.login`), and the owner
//! renames that into place. A rename happens once or not at all, so that a login is neither lost nor
//! taken up a second time, when its refresh token is spent.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{FileStore, create, encode, failed, open, put_in_place, read_record, record_in};
use crate::store::{Record, StoreError};

/// Where a login leaves its record for the owner of the file at `store`.
#[must_use]
pub fn left_beside(store: &Path) -> PathBuf {
    FileStore::new(store.to_owned()).beside(".login")
}

impl FileStore {
    /// Whether a login could leave something: told before a person signs in for nothing.
    pub(in crate::store) fn can_leave(&self) -> Result<(), StoreError> {
        self.same_user()?;
        let pending = self.login_pending();
        create(&pending, b"")?;
        fs::remove_file(&pending).map_err(failed("remove", &pending))
    }

    /// Leaves `record` for the owner, durably and in place of what an earlier login left.
    pub(in crate::store) fn leave(&self, record: &Record) -> Result<(), StoreError> {
        self.same_user()?;
        let (json, pending) = (Zeroizing::new(encode(record)), self.login_pending());
        let written = create(&pending, &json);
        let left = written.and_then(|()| put_in_place(&pending, &left_beside(self.path())));
        // If it is in place by then there is nothing to remove.
        left.inspect_err(|_| drop(fs::remove_file(&pending)))
    }

    /// What a login left and nobody has taken up yet.
    pub(in crate::store) fn left(&self) -> Result<Option<Record>, StoreError> {
        read_record(&left_beside(self.path()))
    }

    /// Puts what was left in the place of the record; only its owner may.
    pub(in crate::store) fn take_up(&mut self) -> Result<Option<Record>, StoreError> {
        self.own()?;
        // What was not put in place yet is older than a login, and would count for newer.
        let _ = fs::remove_file(self.pending());
        let (path, left) = (self.path(), left_beside(self.path()));
        // Read before it is in place: whoever could not read it then would go on with what was there
        // before, and write that over it.
        let held = match open(&left)? {
            Some(file) => Some((record_in(&file, &left)?, file)),
            None => None,
        };
        fs::rename(&left, path).map_err(failed("replace", path))?;
        match held {
            Some((record, file)) if is_at(&file, path) => Ok(Some(record)),
            // Another login has come in between.
            _ => read_record(path),
        }
    }

    /// Each login has one of its own: two at the same time must not write into one file.
    fn login_pending(&self) -> PathBuf {
        self.beside(&format!(".login.{}", std::process::id()))
    }

    /// The owner must be able to read what is left: nobody may but the user who wrote it.
    fn same_user(&self) -> Result<(), StoreError> {
        let own = rustix::process::geteuid().as_raw();
        for path in [self.beside(".lock"), self.path().to_owned()] {
            let owner = fs::symlink_metadata(&path).ok().map(|metadata| metadata.uid());
            if let Some(user) = owner.filter(|owner| *owner != own) {
                return Err(StoreError::AnothersFile { path, user });
            }
        }
        Ok(())
    }
}

/// Whether `file` is what lies at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let number = |about: Metadata| (about.dev(), about.ino());
    let (one, other) = (file.metadata().map(number), fs::symlink_metadata(path).map(number));
    matches!((one, other), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::record;
    use super::*;

    fn held(record: Option<Record>) -> Option<String> {
        record.and_then(|record| record.refresh_token).map(|text| text.to_string())
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_login_is_left_beside_an_owned_file_and_taken_up_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("r.json");
        let mut owner = FileStore::new(path.clone());
        owner.open().unwrap();
        owner.save(&record("old")).unwrap();
        let login = FileStore::new(path.clone());
        login.leave(&record("first login")).unwrap();
        login.leave(&record("second login")).unwrap();
        assert_eq!(names(home.path()), ["r.json", "r.json.lock", "r.json.login"]);
        assert_eq!(fs::metadata(left_beside(&path)).unwrap().mode() & 0o777, 0o600);
        // An unfinished write of the owner is older.
        fs::write(owner.pending(), encode(&record("older"))).unwrap();
        fs::set_permissions(owner.pending(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(held(owner.take_up().unwrap()).unwrap(), "second login");
        assert!(owner.left().unwrap().is_none() && owner.take_up().is_err());
        drop(owner);
        assert_eq!(held(FileStore::new(path).open().unwrap()).unwrap(), "second login");
    }

    #[test]
    fn what_others_could_have_left_or_seen_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let store = FileStore::new(home.path().join("r.json"));
        store.leave(&record("login")).unwrap();
        let left = left_beside(store.path());
        for mode in [0o640, 0o604, 0o602] {
            fs::set_permissions(&left, fs::Permissions::from_mode(mode)).unwrap();
            let error = store.left().err().unwrap().to_string();
            assert!(error.contains("r.json.login may be read by others"), "{error}");
        }
        fs::rename(&left, home.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(home.path().join("elsewhere"), &left).unwrap();
        assert!(store.left().is_err(), "nothing is followed");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let store = FileStore::new(home.path().join("r.json"));
        // A directory in the way cannot be replaced by a file.
        fs::create_dir(left_beside(store.path())).unwrap();
        assert!(store.leave(&record("login")).is_err());
        assert_eq!(names(home.path()), ["r.json.login"]);
    }
}
