//! What the embedded store keeps on disk, and the index over it in memory.
//!
//! ```text
//! lock                             held by the process that serves this directory
//! blobs/<id>                       bytes, written once, shared by copies, never changed
//! objects/<bucket>/<hash>.json     one object: key, metadata and the blobs that make up its bytes
//! uploads/<upload id>/upload.json  one multipart upload
//! uploads/<upload id>/<part>.json  one uploaded part of it
//! ```
//!
//! An object is visible from the rename of its record on, and its record names blobs that are already complete: bytes
//! and metadata appear together or not at all. Keys never become paths; a record's file name is a hash of its key.
//! Every change is made under one lock, which makes conditional writes atomic among parallel requests; the lock file
//! keeps a second process out.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, fs,
    io::{self, Write as _},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use chrono::{DateTime, Utc};
use s3s::{
    S3Result,
    dto::{ETag, ETagCondition},
    s3_error,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::checksum::{ChecksumAlgorithm, StoredChecksum};
use crate::{clock::Clock, dev::DevError};

/// The longest key of S3, in bytes of UTF-8.
const MAX_KEY_BYTES: usize = 1024;

/// The stored headers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) content_type: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Immutable bytes in a file, which is removed when nothing refers to it any more.
///
/// Until an object names it, a blob belongs to the request that writes it, so an upload that breaks off or fails its
/// checks leaves nothing behind.
#[derive(Debug)]
pub(super) struct Blob {
    id: String,
    path: PathBuf,
    kept: Arc<AtomicBool>,
}

impl Blob {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::SeqCst) {
            // What cannot be removed now is removed at the next start, because no record names it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A stretch of an object's bytes.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) blob: Arc<Blob>,
    pub(super) size: u64,
}

/// A visible object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) last_modified: DateTime<Utc>,
    pub(super) attributes: Attributes,
    pub(super) checksum: Option<StoredChecksum>,
    pub(super) segments: Vec<Segment>,
}

/// An uploaded part.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) number: i32,
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) last_modified: DateTime<Utc>,
    pub(super) checksum: Option<StoredChecksum>,
    pub(super) blob: Arc<Blob>,
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone)]
pub(super) struct MultipartUpload {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) initiated: DateTime<Utc>,
    pub(super) attributes: Attributes,
    pub(super) checksum_algorithm: Option<ChecksumAlgorithm>,
    pub(super) parts: BTreeMap<i32, Arc<Part>>,
}

/// What must be true of the key's present object for a write to happen.
#[derive(Debug, Clone, Default)]
pub(super) struct Precondition {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl Precondition {
    /// `If-Match` and `If-None-Match` of a write, as
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html> defines them.
    fn check(&self, present: Option<&Object>) -> S3Result<()> {
        match (&self.if_none_match, present) {
            (Some(ETagCondition::ETag(_)), _) => {
                return Err(s3_error!(NotImplemented, "If-None-Match of a write takes * only"));
            }
            (Some(ETagCondition::Any), Some(_)) => return Err(precondition_failed()),
            _ => {}
        }
        match (&self.if_match, present) {
            (Some(_), None) => Err(s3_error!(NoSuchKey)),
            (Some(ETagCondition::ETag(wanted)), Some(object))
                if !wanted.strong_cmp(&ETag::Strong(object.etag.clone())) =>
            {
                Err(precondition_failed())
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn precondition_failed() -> s3s::S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// A page of a listing, in key order.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Arc<Object>>,
    pub(super) common_prefixes: Vec<String>,
    /// The last key or common prefix of this page, when there is more after it.
    pub(super) next_after: Option<String>,
}

#[derive(Debug)]
struct Bucket {
    created: DateTime<Utc>,
    objects: BTreeMap<String, Arc<Object>>,
    /// By key, then upload id: the order of `ListMultipartUploads`.
    uploads: BTreeMap<(String, String), MultipartUpload>,
}

/// The data directory and its index.
pub(super) struct Volume {
    root: PathBuf,
    clock: Clock,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    /// Set before the index goes away at the end, so that the blobs in it outlive it.
    kept: Arc<AtomicBool>,
    // Both are held for what dropping them does.
    _lock: fs::File,
    _temporary: Option<tempfile::TempDir>,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.kept.store(true, Ordering::SeqCst);
    }
}

impl Volume {
    /// Opens `data_dir`, or a temporary directory that goes away with this value, and removes what an interrupted
    /// process left unfinished.
    pub(super) fn open(data_dir: Option<&Path>, clock: Clock) -> Result<Self, DevError> {
        let temporary = match data_dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("presignd-store-")
                    .tempdir()
                    .map_err(|source| DevError::Disk { path: std::env::temp_dir(), source })?,
            ),
        };
        let root = match (data_dir, &temporary) {
            (Some(path), _) => path.to_owned(),
            (None, Some(directory)) => directory.path().to_owned(),
            (None, None) => PathBuf::new(),
        };
        for directory in [root.join("blobs"), root.join("objects"), root.join("uploads")] {
            fs::create_dir_all(&directory).map_err(at(&directory))?;
        }
        let lock = lock(&root)?;
        // Kept while loading: giving up half-way must not remove the blobs that were already found.
        let kept = Arc::new(AtomicBool::new(true));
        let mut loader = Loader { root: &root, kept: &kept, blobs: BTreeMap::new() };
        let buckets = loader.buckets()?;
        let named: HashSet<String> = loader.blobs.into_keys().collect();
        for (name, path) in entries(&root.join("blobs"))? {
            if !named.contains(&name) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        kept.store(false, Ordering::SeqCst);
        Ok(Self { root, clock, buckets: Mutex::new(buckets), kept, _lock: lock, _temporary: temporary })
    }

    /// A name and place for bytes that are about to be written.
    pub(super) fn new_blob(&self) -> S3Result<Blob> {
        let id = random_hex::<16>()?;
        Ok(Blob { path: self.root.join("blobs").join(&id), id, kept: Arc::clone(&self.kept) })
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        use chrono::SubsecRound as _;
        // S3 shows whole seconds in Last-Modified, and compares with those.
        self.clock.now().trunc_subsecs(0)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        // A panic elsewhere cannot have left the index half changed: it changes by single inserts and removals.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates `name`; `false` when it exists.
    pub(super) fn create_bucket(&self, name: &str) -> io::Result<bool> {
        let mut buckets = self.lock();
        if buckets.contains_key(name) {
            return Ok(false);
        }
        fs::create_dir_all(self.root.join("objects").join(name))?;
        let bucket = Bucket { created: self.now(), objects: BTreeMap::new(), uploads: BTreeMap::new() };
        buckets.insert(name.to_owned(), bucket);
        Ok(true)
    }

    pub(super) fn buckets(&self) -> Vec<(String, DateTime<Utc>)> {
        self.lock().iter().map(|(name, bucket)| (name.clone(), bucket.created)).collect()
    }

    pub(super) fn require_bucket(&self, name: &str) -> S3Result<()> {
        if self.lock().contains_key(name) { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        bucket.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// Makes `object` visible under its key, if `condition` holds at that very moment.
    pub(super) fn publish(&self, bucket: &str, object: Object, condition: &Precondition) -> S3Result<Arc<Object>> {
        if object.key.is_empty() || object.key.len() > MAX_KEY_BYTES {
            return Err(s3_error!(KeyTooLongError, "Your key must be 1 to 1024 bytes"));
        }
        let replaced;
        let object = Arc::new(object);
        {
            let mut buckets = self.lock();
            let entry = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
            condition.check(entry.objects.get(&object.key).map(Arc::as_ref))?;
            self.write_object(bucket, &object)?;
            replaced = entry.objects.insert(object.key.clone(), Arc::clone(&object));
        }
        // Dropped here and not under the lock: removing a large file takes time.
        drop(replaced);
        Ok(object)
    }

    /// Removes the object under `key`, if there is one; S3 does not tell which.
    pub(super) fn delete(&self, bucket: &str, key: &str) -> S3Result<()> {
        let mut buckets = self.lock();
        let entry = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        if entry.objects.contains_key(key) {
            fs::remove_file(self.object_record(bucket, key)).map_err(internal)?;
        }
        let removed = entry.objects.remove(key);
        drop(buckets);
        drop(removed);
        Ok(())
    }

    /// The objects under `prefix` after `after`, keys that share a `delimiter` behind the prefix grouped into one.
    pub(super) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> S3Result<Page> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let mut page = Page::default();
        let mut last = None;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        for (key, object) in bucket.objects.range::<str, _>((start, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let group = delimiter
                .filter(|delimiter| !delimiter.is_empty())
                .and_then(|delimiter| rest.split_once(delimiter).map(|(head, _)| format!("{prefix}{head}{delimiter}")));
            // A group that was listed stands for all its keys, also for those after a continuation.
            if group.is_some() && (group == last || group.as_deref() == after) {
                continue;
            }
            if page.objects.len() + page.common_prefixes.len() == limit {
                page.next_after = last;
                break;
            }
            last = Some(group.clone().unwrap_or_else(|| key.clone()));
            match group {
                Some(group) => page.common_prefixes.push(group),
                None => page.objects.push(Arc::clone(object)),
            }
        }
        Ok(page)
    }

    pub(super) fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
        checksum_algorithm: Option<ChecksumAlgorithm>,
    ) -> S3Result<MultipartUpload> {
        let upload = MultipartUpload {
            id: random_hex::<24>()?,
            key: key.to_owned(),
            initiated: self.now(),
            attributes,
            checksum_algorithm,
            parts: BTreeMap::new(),
        };
        let record = UploadRecord {
            bucket: bucket.to_owned(),
            key: upload.key.clone(),
            initiated: upload.initiated,
            attributes: upload.attributes.clone(),
            checksum_algorithm,
        };
        let mut buckets = self.lock();
        let entry = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let directory = self.upload_directory(&upload.id);
        fs::create_dir(&directory).map_err(internal)?;
        write_record(&directory.join("upload.json"), &record)?;
        entry.uploads.insert((upload.key.clone(), upload.id.clone()), upload.clone());
        Ok(upload)
    }

    pub(super) fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<MultipartUpload> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        bucket.uploads.get(&(key.to_owned(), id.to_owned())).cloned().ok_or_else(no_such_upload)
    }

    pub(super) fn uploads(&self, bucket: &str) -> S3Result<Vec<MultipartUpload>> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        Ok(bucket.uploads.values().cloned().collect())
    }

    /// Records a part; one with the same number is replaced.
    pub(super) fn put_part(&self, bucket: &str, key: &str, id: &str, part: Part) -> S3Result<()> {
        let mut buckets = self.lock();
        let entry = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let upload = entry.uploads.get_mut(&(key.to_owned(), id.to_owned())).ok_or_else(no_such_upload)?;
        let record = PartRecord {
            number: part.number,
            etag: part.etag.clone(),
            size: part.size,
            last_modified: part.last_modified,
            checksum: part.checksum.clone(),
            blob: part.blob.id.clone(),
        };
        write_record(&self.upload_directory(id).join(format!("{}.json", part.number)), &record)?;
        let replaced = upload.parts.insert(part.number, Arc::new(part));
        drop(buckets);
        drop(replaced);
        Ok(())
    }

    /// Turns an upload into the object that `assemble` makes of its parts, if `condition` holds.
    ///
    /// `assemble` runs under the lock: the parts it sees are the ones that the object gets.
    pub(super) fn complete(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        condition: &Precondition,
        assemble: impl FnOnce(&MultipartUpload) -> S3Result<Object>,
    ) -> S3Result<Arc<Object>> {
        let mut buckets = self.lock();
        let entry = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let name = (key.to_owned(), id.to_owned());
        let object = Arc::new(assemble(entry.uploads.get(&name).ok_or_else(no_such_upload)?)?);
        condition.check(entry.objects.get(key).map(Arc::as_ref))?;
        self.write_object(bucket, &object)?;
        let upload = entry.uploads.remove(&name);
        let replaced = entry.objects.insert(object.key.clone(), Arc::clone(&object));
        let removed = fs::remove_dir_all(self.upload_directory(id));
        drop(buckets);
        drop((upload, replaced));
        // The object is visible: a directory that lingers must not turn this into a failure.
        if let Err(error) = removed {
            log::warn!("cannot remove the records of a completed multipart upload: {error}");
        }
        Ok(object)
    }

    pub(super) fn abort(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        let mut buckets = self.lock();
        let entry = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let name = (key.to_owned(), id.to_owned());
        if !entry.uploads.contains_key(&name) {
            return Err(no_such_upload());
        }
        fs::remove_dir_all(self.upload_directory(id)).map_err(internal)?;
        let upload = entry.uploads.remove(&name);
        drop(buckets);
        drop(upload);
        Ok(())
    }

    fn upload_directory(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    fn object_record(&self, bucket: &str, key: &str) -> PathBuf {
        let hash = hex::encode(digest(&SHA256, key.as_bytes()));
        self.root.join("objects").join(bucket).join(format!("{hash}.json"))
    }

    fn write_object(&self, bucket: &str, object: &Object) -> S3Result<()> {
        let record = ObjectRecord {
            key: object.key.clone(),
            etag: object.etag.clone(),
            last_modified: object.last_modified,
            attributes: object.attributes.clone(),
            checksum: object.checksum.clone(),
            segments: object
                .segments
                .iter()
                .map(|segment| SegmentRecord { blob: segment.blob.id.clone(), size: segment.size })
                .collect(),
        };
        write_record(&self.object_record(bucket, &object.key), &record)
    }
}

fn no_such_upload() -> s3s::S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been \
         aborted or completed."
    )
}

pub(super) fn internal(error: io::Error) -> s3s::S3Error {
    s3s::S3Error::internal_error(error)
}

/// `N` random bytes in hexadecimal.
pub(super) fn random_hex<const N: usize>() -> S3Result<String> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| s3_error!(InternalError, "no randomness"))?;
    Ok(hex::encode(bytes))
}

#[derive(Serialize, Deserialize)]
struct SegmentRecord {
    blob: String,
    size: u64,
}

#[derive(Serialize, Deserialize)]
struct ObjectRecord {
    key: String,
    etag: String,
    last_modified: DateTime<Utc>,
    attributes: Attributes,
    checksum: Option<StoredChecksum>,
    segments: Vec<SegmentRecord>,
}

#[derive(Serialize, Deserialize)]
struct UploadRecord {
    bucket: String,
    key: String,
    initiated: DateTime<Utc>,
    attributes: Attributes,
    checksum_algorithm: Option<ChecksumAlgorithm>,
}

#[derive(Serialize, Deserialize)]
struct PartRecord {
    number: i32,
    etag: String,
    size: u64,
    last_modified: DateTime<Utc>,
    checksum: Option<StoredChecksum>,
    blob: String,
}

/// Writes beside `path` and renames over it, so that a reader finds the old record or the new one, whole.
fn write_record(path: &Path, record: &impl Serialize) -> S3Result<()> {
    let unfinished = path.with_extension("new");
    let text = serde_json::to_vec(record).map_err(s3s::S3Error::internal_error)?;
    fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(internal)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DevError {
    let path = path.to_owned();
    |source| DevError::Disk { path, source }
}

fn lock(root: &Path) -> Result<fs::File, DevError> {
    let path = root.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DevError::InUse { path: root.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(DevError::Disk { path, source }),
    }
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, DevError> {
    fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
                .collect()
        })
        .map_err(at(directory))
}

/// Reads the records back into an index.
struct Loader<'a> {
    root: &'a Path,
    kept: &'a Arc<AtomicBool>,
    blobs: BTreeMap<String, Arc<Blob>>,
}

impl Loader<'_> {
    fn buckets(&mut self) -> Result<BTreeMap<String, Bucket>, DevError> {
        let mut buckets = BTreeMap::new();
        for (name, directory) in entries(&self.root.join("objects"))? {
            let created = fs::metadata(&directory).and_then(|m| m.modified()).map_err(at(&directory))?.into();
            let mut objects = BTreeMap::new();
            for path in records(&directory)? {
                let object = self.object(read_record(&path)?);
                objects.insert(object.key.clone(), Arc::new(object));
            }
            buckets.insert(name, Bucket { created, objects, uploads: BTreeMap::new() });
        }
        for (id, directory) in entries(&self.root.join("uploads"))? {
            let path = directory.join("upload.json");
            // Without its record nobody was ever told of the upload.
            if !path.exists() {
                fs::remove_dir_all(&directory).map_err(at(&directory))?;
                continue;
            }
            let record: UploadRecord = read_record(&path)?;
            let mut upload = MultipartUpload {
                id,
                key: record.key,
                initiated: record.initiated,
                attributes: record.attributes,
                checksum_algorithm: record.checksum_algorithm,
                parts: BTreeMap::new(),
            };
            for path in records(&directory)?.into_iter().filter(|other| *other != path) {
                let part = self.part(read_record(&path)?);
                upload.parts.insert(part.number, Arc::new(part));
            }
            if let Some(bucket) = buckets.get_mut(&record.bucket) {
                bucket.uploads.insert((upload.key.clone(), upload.id.clone()), upload);
            }
        }
        Ok(buckets)
    }

    fn object(&mut self, record: ObjectRecord) -> Object {
        let segments: Vec<Segment> = record
            .segments
            .into_iter()
            .map(|segment| Segment { blob: self.blob(&segment.blob), size: segment.size })
            .collect();
        Object {
            key: record.key,
            etag: record.etag,
            size: segments.iter().map(|segment| segment.size).sum(),
            last_modified: record.last_modified,
            attributes: record.attributes,
            checksum: record.checksum,
            segments,
        }
    }

    fn part(&mut self, record: PartRecord) -> Part {
        Part {
            number: record.number,
            etag: record.etag,
            size: record.size,
            last_modified: record.last_modified,
            checksum: record.checksum,
            blob: self.blob(&record.blob),
        }
    }

    /// The one value for a blob that several records may name.
    fn blob(&mut self, id: &str) -> Arc<Blob> {
        let path = self.root.join("blobs").join(id);
        let kept = self.kept;
        let new = || Arc::new(Blob { id: id.to_owned(), path, kept: Arc::clone(kept) });
        Arc::clone(self.blobs.entry(id.to_owned()).or_insert_with(new))
    }
}

fn records(directory: &Path) -> Result<Vec<PathBuf>, DevError> {
    let is_record = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    Ok(entries(directory)?.into_iter().map(|(_, path)| path).filter(is_record).collect())
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T, DevError> {
    let text = fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&text).map_err(|source| DevError::Damaged { path: path.to_owned(), source })
}
