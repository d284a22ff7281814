//! A record in one file, written so that a crash at any moment leaves the old or the new one.
//!
//! Order of a write: another file beside it (`.new`, created exclusively, 0600), write, fsync, rename
//! over the old file, fsync of the directory. A process that ends before the rename leaves the new
//! record behind, whole, and the next one takes it up. A lock file (`.lock`) keeps a second process
//! out for as long as this one lives: the record itself is replaced at each write, so a lock on it
//! would not hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Record, StoreError};
use crate::secret::Fingerprint;

mod login;

pub use login::left_beside;

/// The version that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// What a write that was cut off leaves.
const TORN: &str = "is torn or was not written by bearerd";
/// No record is larger: two tokens of 16 KiB and their frame fit many times.
const MAX_BYTES: u64 = 1 << 20;

/// A store of one credential's record in one file.
pub struct FileStore {
    path: PathBuf,
    lock: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u32,
    /// SHA-256 of `record` as compact JSON in the order of its fields.
    checksum: String,
    record: Record,
}

impl FileStore {
    /// A store at `path`; nothing is touched yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, lock: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the file for this process and reads it; `None` if there is none yet.
    pub(super) fn open(&mut self) -> Result<Option<Record>, StoreError> {
        self.own()?;
        self.load()
    }

    /// Replaces the record durably; only its owner may.
    pub(super) fn save(&mut self, record: &Record) -> Result<(), StoreError> {
        self.own()?;
        let (json, pending) = (Zeroizing::new(encode(record)), self.pending());
        // What a failed attempt left behind may be the only copy: it is not written again.
        let left_behind = read(&pending).ok().flatten().is_some_and(|left| *left == *json);
        if !left_behind {
            create(&pending, &json)?;
        }
        put_in_place(&pending, &self.path)
    }

    /// Reads the newest record: one that was written whole and not put in place yet is newer than
    /// the one in place, since the next write would have begun by removing it.
    fn load(&self) -> Result<Option<Record>, StoreError> {
        let pending = self.pending();
        match read_record(&pending) {
            Ok(None) => {}
            Ok(newest) => {
                // Durably, since a kill may have come before that. If it cannot be put in place it stays,
                // and is found again.
                let _ = put_in_place(&pending, &self.path);
                return Ok(newest);
            }
            // A write that was cut off: what it replaces still counts.
            Err(StoreError::Unreadable { problem: TORN, .. }) => {
                let _ = fs::remove_file(&pending);
            }
            Err(error) => return Err(error),
        }
        read_record(&self.path)
    }

    fn own(&mut self) -> Result<(), StoreError> {
        if self.lock.is_none() {
            self.lock = Some(self.acquire()?);
        }
        Ok(())
    }

    fn acquire(&self) -> Result<File, StoreError> {
        let path = self.beside(".lock");
        let io = |source| failed("lock", &path)(source);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.take(64).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(StoreError::Held { path, holder });
            }
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
        }
        lock.set_len(0).map_err(io)?;
        lock.rewind().map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(lock)
    }

    /// Where a record is written before it takes the place of the former one.
    fn pending(&self) -> PathBuf {
        self.beside(".new")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    }
}

/// Writes a file that only this user may read, in place of whatever lies there.
fn create(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let _ = fs::remove_file(path);
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = created.map_err(failed("create", path))?;
    file.write_all(content).map_err(failed("write", path))
}

/// Has `pending` take the place of `path`, durably.
fn put_in_place(pending: &Path, path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let sync = |path: &Path| File::open(path)?.sync_all();
    sync(pending).map_err(failed("sync", pending))?;
    fs::rename(pending, path).map_err(failed("replace", path))?;
    sync(directory).map_err(failed("sync the directory", directory))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// The record at `path`; `None` if there is no such file.
fn read_record(path: &Path) -> Result<Option<Record>, StoreError> {
    let Some(file) = open(path)? else { return Ok(None) };
    record_in(&file, path).map(Some)
}

/// The record in `file`, which is at `path`.
fn record_in(file: &File, path: &Path) -> Result<Record, StoreError> {
    let unreadable = |problem| StoreError::Unreadable { path: path.to_owned(), problem };
    decode(&content(file, path)?).map_err(unreadable)
}

/// The content of a file that nobody else may read or replace.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let Some(file) = open(path)? else { return Ok(None) };
    content(&file, path).map(Some)
}

/// A file that nobody else may read or replace; `None` if there is none.
fn open(path: &Path) -> Result<Option<File>, StoreError> {
    let unreadable = |problem| StoreError::Unreadable { path: path.to_owned(), problem };
    let io = |source| failed("read", path)(source);
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(unreadable("is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned() });
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(StoreError::AnothersFile { path: path.to_owned(), user: metadata.uid() });
    }
    Ok(Some(file))
}

fn content(file: &File, path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut json = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1).read_to_end(&mut json).map_err(failed("read", path))?;
    Ok(json)
}

/// The file that keeps `record`.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let envelope = Envelope { format: FORMAT, checksum: checksum(record), record: record.clone() };
    let mut json = serde_json::to_vec_pretty(&envelope).unwrap_or_default();
    json.push(b'\n');
    json
}

/// The record that a file keeps.
///
/// # Errors
/// What is wrong with the file, never its content.
pub fn decode(json: &[u8]) -> Result<Record, &'static str> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(json).map_err(|_| TORN)?;
    if version.format != FORMAT {
        return Err("has a format that this version does not know");
    }
    let envelope: Envelope = serde_json::from_slice(json).map_err(|_| TORN)?;
    if envelope.checksum != checksum(&envelope.record) {
        return Err("has a checksum that does not match its content");
    }
    Ok(envelope.record)
}

fn checksum(record: &Record) -> String {
    let json = Zeroizing::new(serde_json::to_vec(record).unwrap_or_default());
    Fingerprint::of(&json).to_hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    pub(super) fn record(text: &str) -> Record {
        Record {
            refresh_token: Some(Zeroizing::new(text.to_owned())),
            bootstrap_sha256: None,
            access_token: None,
            obtained_at: 1,
            expires_at: 2,
            identity: None,
        }
    }

    fn held(store: &FileStore) -> String {
        store.load().unwrap().unwrap().refresh_token.unwrap().to_string()
    }

    fn refused(store: &FileStore) -> String {
        store.load().err().expect("refused").to_string()
    }

    #[test]
    fn what_is_saved_is_read_again_and_only_by_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut store = FileStore::new(path.clone());
        assert!(store.open().unwrap().is_none());
        store.save(&record("one")).unwrap();
        store.save(&record("two")).unwrap();
        assert_eq!(held(&store), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "no temporary file stays behind: {left:?}");
    }

    #[test]
    fn a_record_that_was_written_and_not_put_in_place_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut store = FileStore::new(path.clone());
        store.save(&record("one")).unwrap();
        for _ in 0..2 {
            // As after the fsync; the second time not even a former one is there.
            fs::write(store.pending(), encode(&record("two"))).unwrap();
            fs::set_permissions(store.pending(), fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(held(&store), "two");
            assert!(!store.pending().exists() && path.exists());
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_that_lies_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(dir.path().join("r.json"));
        let other = dir.path().join("other");
        fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&other, store.pending()).unwrap();
        assert!(refused(&store).contains("r.json.new"));
        store.save(&record("one")).unwrap();
        assert_eq!(
            (held(&store).as_str(), fs::read_to_string(&other).unwrap()),
            ("one", "untouched".into())
        );
        assert_eq!(fs::metadata(&store.path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_write_that_was_cut_off_is_cleared_away_and_one_of_another_version_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut store = FileStore::new(path.clone());
        store.save(&record("one")).unwrap();
        let whole = encode(&record("two"));
        for cut in 0..whole.len() - 1 {
            fs::write(store.pending(), &whole[..cut]).unwrap();
            fs::set_permissions(store.pending(), fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(held(&store), "one", "cut at {cut}");
            assert!(!store.pending().exists());
        }
        let newer = String::from_utf8(whole).unwrap().replace("\"format\": 1", "\"format\": 2");
        fs::write(store.pending(), newer).unwrap();
        fs::set_permissions(store.pending(), fs::Permissions::from_mode(0o600)).unwrap();
        let error = refused(&store);
        assert!(error.contains("r.json.new has a format that this version"), "{error}");
        assert!(store.pending().exists());
    }

    #[test]
    fn a_second_owner_is_told_who_holds_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut first = FileStore::new(path.clone());
        first.open().unwrap();
        let error = FileStore::new(path.clone()).open().err().unwrap().to_string();
        assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
        drop(first);
        FileStore::new(path).open().unwrap();
    }

    #[test]
    fn torn_foreign_and_exposed_files_are_named_and_never_taken_for_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut store = FileStore::new(path.clone());
        store.save(&record("one")).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (content, problem) in [
            (good[..good.len() / 2].to_owned(), "torn"),
            (String::new(), "torn"),
            (good.replace("one", "eno"), "checksum"),
            (good.replace("\"format\": 1", "\"format\": 2"), "format that this version"),
        ] {
            fs::write(&path, content).unwrap();
            let error = refused(&store);
            assert!(error.contains(problem) && error.contains("r.json"), "{error}");
            assert!(!error.contains("eno") && !error.contains("one\""), "{error}");
        }
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&store).contains("run chmod 600"));
        fs::rename(&path, dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), &path).unwrap();
        assert!(refused(&store).contains("cannot read"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_record() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mut store = FileStore::new(inner.join("r.json"));
        store.save(&record("one")).unwrap();
        fs::rename(&inner, dir.path().join("away")).unwrap();
        assert!(store.save(&record("two")).is_err());
        fs::rename(dir.path().join("away"), &inner).unwrap();
        assert_eq!(held(&store), "one");
    }
}
