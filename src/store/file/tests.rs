//! Two stores on one directory behave like two processes: the kernel's lock belongs to the open
//! file, not to the process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::client_id::ClientId;
use crate::clock::SystemClock;
use crate::secret::Secret;
use crate::token::ports::{StoredPool, StoredToken};

const INSTANCE: &str = "https://acme.example:8443";
const LENGTH: Duration = Duration::from_secs(60);
/// Longer than noticing a change takes, and shorter than the tests' timeouts.
const SOON: Duration = Duration::from_secs(20);

/// A directory that does not exist yet, in one that is removed with the test.
fn place() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("state/proxy");
    (root, directory)
}

fn store_of(directory: &Path, id: &str, secret: &str) -> FileStore {
    let id = ClientId::parse(id).unwrap();
    let key = Key::new(INSTANCE, &id, &Secret::from(secret.to_owned()));
    FileStore::new(directory.to_owned(), "catalog", key, Arc::new(SystemClock)).unwrap()
}

fn store(directory: &Path) -> FileStore {
    store_of(directory, "id", "s3cret")
}

fn record(generation: u64) -> Record {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Record {
        generation,
        token: Some(StoredToken {
            generation,
            access_token: Secret::from(format!("token-{generation}")),
            asked: now,
            lifetime: Duration::from_secs(299),
        }),
        pool: StoredPool {
            full_at: now,
            not_before: now,
        },
    }
}

async fn lease(store: &FileStore) -> Option<Box<dyn Lease>> {
    store.lease(LENGTH).await.unwrap()
}

async fn publish(store: &FileStore, generation: u64) {
    let mut lease = lease(store).await.unwrap();
    lease.publish(&record(generation)).await.unwrap();
}

/// The token that is stored, if any.
async fn token(store: &FileStore) -> Option<String> {
    let token = store.read().await.unwrap()?.token?;
    Some(token.access_token.expose().to_owned())
}

/// The files in `directory` and their modes, in order.
fn listing(directory: &Path) -> Vec<(String, u32)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                mode(&entry.path()),
            )
        })
        .collect();
    files.sort();
    files
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn what_one_keeps_the_other_reads() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    assert!(other.read().await.unwrap().is_none());
    publish(&one, 1).await;
    assert_eq!(token(&other).await.as_deref(), Some("token-1"));
    publish(&other, 2).await;
    assert_eq!(token(&one).await.as_deref(), Some("token-2"));
    let restarted = store(&directory);
    assert_eq!(token(&restarted).await.as_deref(), Some("token-2"));
}

#[tokio::test]
async fn one_has_the_lease_at_a_time() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    let held = lease(&one).await.unwrap();
    assert!(lease(&other).await.is_none());
    assert!(lease(&one).await.is_none());
    drop(held);
    assert!(lease(&other).await.is_some());
}

#[tokio::test]
async fn a_lease_runs_out() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    let mut held = one.lease(Duration::from_millis(50)).await.unwrap().unwrap();
    let taken = async {
        while lease(&other).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, taken).await.unwrap();
    let error = held.publish(&record(1)).await.unwrap_err();
    assert!(error.to_string().contains("lease expired"), "{error}");
}

#[tokio::test]
async fn a_lower_generation_replaces_none_and_an_equal_one_does() {
    let (_root, directory) = place();
    let store = store(&directory);
    publish(&store, 5).await;
    publish(&store, 5).await;
    let mut held = lease(&store).await.unwrap();
    let error = held.publish(&record(4)).await.unwrap_err().to_string();
    assert!(error.contains("newer than token 4"), "{error}");
    assert_eq!(token(&store).await.as_deref(), Some("token-5"));

    // a token sealed with another secret is superseded like any other
    let rotated = store_of(&directory, "id", "rotated");
    drop(held);
    let mut held = lease(&rotated).await.unwrap();
    held.publish(&record(4)).await.unwrap_err();
    held.publish(&record(6)).await.unwrap();
    let kept = store.read().await.unwrap().unwrap();
    assert_eq!((kept.generation, kept.token.is_none()), (6, true));
}

#[tokio::test]
async fn a_change_by_another_is_told() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    for generation in 1..4 {
        assert!(token(&one).await.is_none() || generation > 1);
        // once before the wait, once during it
        if generation == 2 {
            publish(&other, generation).await;
            timeout(SOON, one.changed()).await.unwrap();
        } else {
            let (told, ()) =
                tokio::join!(timeout(SOON, one.changed()), publish(&other, generation));
            told.unwrap();
        }
        assert_eq!(token(&one).await, Some(format!("token-{generation}")));
    }
    fs::remove_file(one.inner.disk.record()).unwrap();
    timeout(SOON, one.changed()).await.unwrap();
    assert_eq!(token(&one).await, None);
}

#[tokio::test]
async fn what_was_there_before_the_first_read_is_told() {
    let (_root, directory) = place();
    publish(&store(&directory), 1).await;
    timeout(SOON, store(&directory).changed()).await.unwrap();
}

#[tokio::test]
async fn no_change_is_told_of_what_was_read_or_written_here() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    publish(&other, 1).await;
    assert!(token(&one).await.is_some());
    assert!(timeout(POLL * 3, one.changed()).await.is_err());
    publish(&one, 2).await;
    assert!(timeout(POLL * 3, one.changed()).await.is_err());
}

#[tokio::test]
async fn whoever_gives_up_waiting_and_comes_again_misses_nothing() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    assert!(token(&one).await.is_none());
    publish(&other, 1).await;
    // shorter than the polling interval
    let told = async { while timeout(POLL / 10, one.changed()).await.is_err() {} };
    timeout(SOON, told).await.unwrap();
}

#[tokio::test]
async fn a_reader_beside_a_waiter_does_not_make_it_miss_a_change() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    assert!(token(&one).await.is_none());
    let beside = async {
        publish(&other, 1).await;
        assert!(token(&one).await.is_some());
    };
    let (told, ()) = tokio::join!(timeout(SOON, one.changed()), beside);
    told.unwrap();
}

#[tokio::test]
async fn what_a_killed_process_left_is_ignored_and_removed() {
    let (_root, directory) = place();
    let store = store(&directory);
    publish(&store, 1).await;
    let record = store.inner.disk.record();
    let left = record.with_extension("tmp");
    let half = fs::read(record).unwrap();
    fs::write(&left, &half[..half.len() / 2]).unwrap();
    assert_eq!(token(&store).await.as_deref(), Some("token-1"));
    publish(&store, 2).await;
    assert_eq!(token(&store).await.as_deref(), Some("token-2"));
    assert!(!left.exists());
}

#[tokio::test]
async fn files_are_named_for_their_client_and_closed_to_others() {
    let (_root, directory) = place();
    publish(&store(&directory), 1).await;
    publish(&store_of(&directory, "other-id", "s3cret"), 1).await;
    let files = listing(&directory);
    assert_eq!(files.len(), 4, "{files:?}");
    for (name, mode) in &files {
        assert!(name.starts_with("acme.example-8443-"), "{name}");
        assert_eq!(*mode, 0o600, "{name}");
    }
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(directory.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn neither_token_nor_secret_stands_in_a_file() {
    let (_root, directory) = place();
    let store = store_of(&directory, "id", "k4n4ri-secret");
    let mut kept = record(1);
    if let Some(token) = &mut kept.token {
        token.access_token = Secret::from("k4n4ri-token".to_owned());
    }
    let mut held = lease(&store).await.unwrap();
    held.publish(&kept).await.unwrap();
    for (name, _) in listing(&directory) {
        let bytes = fs::read(directory.join(&name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("k4n4ri"), "{text}");
    }
    let shown = format!("{store:?} {held:?}");
    assert!(!shown.contains("k4n4ri"), "{shown}");
}

#[tokio::test]
async fn what_cannot_be_used_is_reported_once_and_replaced() {
    let (_root, directory) = place();
    let store = store(&directory);
    let is_news = |bytes: &[u8]| store.inner.entry.inspect(bytes).1.is_some();
    assert!(is_news(b"garbage"));
    assert!(!is_news(b"garbage"));
    assert!(is_news(b"other garbage"));
    assert!(!is_news(b"other garbage"));

    fs::write(store.inner.disk.record(), "garbage").unwrap();
    assert!(store.read().await.unwrap().is_none());
    publish(&store, 1).await;
    assert_eq!(token(&store).await.as_deref(), Some("token-1"));
}

#[tokio::test]
async fn what_others_can_read_is_noticed() {
    let (_root, directory) = place();
    let store = store(&directory);
    publish(&store, 1).await;
    let exposed = || store.inner.disk.read().1.unwrap().unwrap().exposed;
    assert!(!exposed() && !store.inner.disk.prepare().unwrap());
    fs::set_permissions(store.inner.disk.record(), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    assert!(exposed() && store.inner.disk.prepare().unwrap());
    assert_eq!(token(&store).await.as_deref(), Some("token-1"));
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named_with_what_to_do() {
    let (root, directory) = place();
    let store = store(&directory);
    let mut held = lease(&store).await.unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let errors = [
        store.read().await.unwrap_err(),
        store.lease(LENGTH).await.unwrap_err(),
    ];
    for error in errors {
        let error = error.to_string();
        assert!(error.contains("acme.example-8443-"), "{error}");
        let remedy = format!("create the directory {}", directory.display());
        assert!(error.contains(&remedy), "{error}");
    }
    let error = held.publish(&record(1)).await.unwrap_err();
    assert!(
        error.to_string().contains("create the directory"),
        "{error}"
    );
    drop(held);
    // once it exists again, the store works again
    fs::create_dir(&directory).unwrap();
    publish(&store, 1).await;

    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let id = ClientId::parse("id").unwrap();
    let key = Key::new(INSTANCE, &id, &Secret::from("s".to_owned()));
    let error = FileStore::new(file.clone(), "catalog", key, Arc::new(SystemClock)).unwrap_err();
    assert!(error.to_string().contains(&*file.to_string_lossy()));
}

#[tokio::test]
async fn a_lock_that_was_taken_away_no_longer_counts() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    let mut first = lease(&one).await.unwrap();
    fs::remove_file(one.inner.disk.record().with_extension("lock")).unwrap();
    let mut second = lease(&other).await.unwrap();
    let error = first.publish(&record(1)).await.unwrap_err();
    assert!(
        error.to_string().contains("leave it where it is"),
        "{error}"
    );
    second.publish(&record(1)).await.unwrap();
}

/// As by a stopped process, whose lease does not end by itself.
#[tokio::test]
async fn a_lock_that_is_held_beyond_its_end_is_taken_over() {
    let (_root, directory) = place();
    let (one, other) = (store(&directory), store(&directory));
    let long = Duration::from_secs(3_600);
    let mut stopped = one.lease(long).await.unwrap().unwrap();
    stopped.publish(&record(1)).await.unwrap();
    let short = Duration::from_millis(200);
    let begin = SystemClock.now();
    let taken = async {
        loop {
            if let Some(lease) = other.lease(short).await.unwrap() {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut second = timeout(SOON, taken).await.unwrap();
    assert!(
        SystemClock.now().since(begin) >= short,
        "not before its end"
    );
    assert!(lease(&one).await.is_none(), "it is held by one at a time");
    second.publish(&record(2)).await.unwrap();

    let lost = stopped.publish(&record(3)).await.unwrap_err();
    assert!(matches!(lost, StoreError::Conflict(_)), "{lost}");
    assert_eq!(token(&other).await.as_deref(), Some("token-2"));
    drop(stopped);
    assert!(
        lease(&one).await.is_none(),
        "nor does its end free the other's"
    );
    drop(second);
    assert!(lease(&one).await.is_some());
}

#[tokio::test]
async fn what_is_no_file_is_neither_waited_for_nor_followed() {
    let (root, directory) = place();
    let store = store(&directory);
    let path = store.inner.disk.record();

    fs::create_dir(path).unwrap();
    let error = store.read().await.unwrap_err().to_string();
    assert!(error.contains("is not a file; remove it"), "{error}");
    assert!(timeout(POLL * 3, store.changed()).await.is_err(), "no spin");
    fs::remove_dir(path).unwrap();

    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
    let read = timeout(SOON, store.read()).await.unwrap();
    assert!(read.unwrap_err().to_string().contains("is not a file"));
    fs::remove_file(path).unwrap();

    let elsewhere = root.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    for link in [path.to_owned(), path.with_extension("tmp")] {
        std::os::unix::fs::symlink(&elsewhere, link).unwrap();
    }
    let read = store.read().await;
    assert!(read.unwrap_err().to_string().contains("is not a file"));
    let mut held = lease(&store).await.unwrap();
    held.publish(&record(1)).await.unwrap_err();
    fs::remove_file(path).unwrap();
    held.publish(&record(1)).await.unwrap();
    assert_eq!(token(&store).await.as_deref(), Some("token-1"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
}

#[tokio::test]
async fn many_that_share_a_store_count_up_without_a_gap() {
    let (_root, directory) = place();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let directory = directory.clone();
        tasks.spawn(async move {
            let store = store(&directory);
            for _ in 0..10 {
                let mut held = loop {
                    match lease(&store).await {
                        Some(held) => break held,
                        None => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                };
                let kept = store.read().await.unwrap();
                let generation = kept.map_or(0, |kept| kept.generation);
                held.publish(&record(generation + 1)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(token(&store(&directory)).await.as_deref(), Some("token-80"));
}
