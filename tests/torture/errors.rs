//! P8: whatever call of the store fails, no client learns of it, and the store recovers.
//!
//! Reads of stored bytes go through memory maps and are no calls: what fails there is not tried.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hub::{Action, Fault, Target};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::books::assert_served;
use crate::mount::skipped;
use crate::pool::{Image, Pool};
use crate::pull::{Puller, pull};
use crate::roadstead::{BINARY, Roadstead, Setup};
use crate::tracer::{Tracer, arguments, launcher, missing, names};
use crate::{random, setting};

/// After a disk has worked again for so long, what is pulled is stored.
const RECOVERY: Duration = Duration::from_secs(15);

/// Servers at a time.
const SIDE_BY_SIDE: usize = 2;

/// Layers of an image that is pulled meanwhile.
const LAYERS: [usize; 2] = [3 << 20, 300 << 10];

/// Upstream's pieces: small, for many writes.
const PIECE: Action = Action::Drip { bytes: 64 << 10, every: Duration::from_millis(1) };

/// Calls that fail the same way.
#[derive(Debug, Clone, Copy)]
struct Row {
    calls: &'static str,
    error: &'static str,
    /// Whether others than the store make these calls too.
    only_on_names: bool,
}

/// Which of a thread's calls fail.
#[derive(Debug, Clone, Copy)]
enum When {
    Nth(u32),
    All,
}

const ROWS: [Row; 9] = [
    Row { calls: "pwrite64,pwritev,pwritev2", error: "ENOSPC", only_on_names: false },
    Row { calls: "pwrite64,pwritev,pwritev2", error: "EIO", only_on_names: false },
    Row { calls: "write,writev", error: "ENOSPC", only_on_names: true },
    Row { calls: "fsync,fdatasync", error: "EIO", only_on_names: false },
    Row { calls: "fsync,fdatasync", error: "ENOSPC", only_on_names: false },
    Row { calls: "rename,renameat,renameat2", error: "EACCES", only_on_names: false },
    Row { calls: "openat", error: "EACCES", only_on_names: true },
    Row { calls: "ftruncate,fallocate", error: "ENOSPC", only_on_names: false },
    Row { calls: "mkdir,mkdirat", error: "ENOSPC", only_on_names: false },
];

/// A row is over once so many numbers in a row have hit nothing.
const IN_VAIN: u32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_error_never_reaches_a_client() {
    if let Some(why) = missing() {
        return skipped("disk errors", why);
    }
    let most: u32 = setting("ROADSTEAD_INJECTIONS", 20);
    let mut random = random("disk errors");
    let turns = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut rows = JoinSet::new();
    for (place, row) in ROWS.into_iter().enumerate() {
        let (turns, random) = (Arc::clone(&turns), random.fork());
        rows.spawn(async move { (place, row_of(row, most, &turns, random).await) });
    }
    let mut table = rows.join_all().await;
    table.sort();
    println!(
        "disk errors: calls hit by the fault at the N-th of a thread, N = 1..={most}, then at all; \
         `!` failed as told above"
    );
    for (place, line) in &table {
        let Row { calls, error, .. } = ROWS[*place];
        println!("  {calls:26} {error:7} {line}");
    }
    let failed: usize = table.iter().map(|(_, line)| line.matches('!').count()).sum();
    assert_eq!(failed, 0, "faults that a client, the server or the store did not get over");
}

/// One line of the table.
async fn row_of(row: Row, most: u32, turns: &Semaphore, mut random: fastrand::Rng) -> String {
    let mut line = String::new();
    let mut in_vain = 0;
    for when in (1..=most).map(When::Nth).chain([When::All]) {
        if in_vain == IN_VAIN && matches!(when, When::Nth(_)) {
            continue;
        }
        let _turn = turns.acquire().await.unwrap();
        // In a task of its own, so that one that fails leaves the others their turn.
        match tokio::spawn(case(row, when, random.fork())).await {
            Ok(0) => {
                in_vain += 1;
                line.push_str("  -");
            }
            Ok(hits) => {
                in_vain = 0;
                write!(line, "{hits:>3}").unwrap();
            }
            Err(_) => line.push_str("  !"),
        }
    }
    line
}

/// One server with one kind of fault; answers how many calls it hit.
async fn case(row: Row, when: When, random: fastrand::Rng) -> usize {
    let what = format!("{} {} {when:?}", row.calls, row.error);
    let mut pool = Pool::start(random).await;
    pool.hub.fault(Fault::new(Target::blobs(), PIECE));
    let images = [pool.push(&LAYERS, &[]), pool.push(&LAYERS, &[])];
    let mut roadstead = Setup::of(&pool.hub).start().await;
    let paths = match row.only_on_names {
        true => names(&roadstead.data(), images.iter().flat_map(|image| image.digests())),
        false => Vec::new(),
    };
    let tracer = Tracer::attach(&roadstead, &arguments(&paths, row.calls, &fault(row, when))).await;
    for temperature in ["cold", "warm"] {
        let puller = Puller::new(roadstead.at());
        let [a, b] = &images;
        let (a, b) = tokio::join!(puller.image(&a.name, "latest"), puller.image(&b.name, "latest"));
        for pulled in [a, b] {
            assert!(pulled.is_ok(), "{what}: a {temperature} pull: {pulled:?}");
        }
        roadstead.settled().await;
    }
    let hits = tracer.detach().await;
    assert!(roadstead.lives(), "{what}: the server has ended");
    roadstead.assert_all_stored_is_right();
    let kept = recovered(&roadstead, &mut pool, &what).await;
    roadstead.kill9();
    roadstead.restart().await;
    roadstead.assert_all_stored_is_right();
    let kept = kept.digests().cloned().collect::<BTreeSet<_>>();
    assert_served(&roadstead, &pool, &kept, |_| true, &what).await;
    hits
}

fn fault(row: Row, when: When) -> String {
    let when = match when {
        When::Nth(nth) => format!("{nth}"),
        When::All => "1+".to_owned(),
    };
    format!("error={}:when={when}", row.error)
}

/// Pulls new images until one of them is stored with all its blobs.
pub(crate) async fn recovered(roadstead: &Roadstead, pool: &mut Pool, what: &str) -> Arc<Image> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let image = pool.push(&[200 << 10, 20 << 10], &[]);
        let pulled = Puller::new(roadstead.at()).image(&image.name, "latest").await;
        assert!(pulled.is_ok(), "{what}: afterwards: {pulled:?}");
        roadstead.settled().await;
        let stored = roadstead.stored();
        if image.digests().all(|digest| stored.contains_key(digest)) {
            return image;
        }
        assert!(Instant::now() < deadline, "{what}: {RECOVERY:?} later nothing is stored");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Calls of a start on a store that holds something.
const AT_START: [Row; 6] = [
    Row { calls: "openat", error: "EACCES", only_on_names: true },
    Row { calls: "pwrite64", error: "ENOSPC", only_on_names: true },
    Row { calls: "fsync,fdatasync", error: "EIO", only_on_names: true },
    Row { calls: "rename,renameat,renameat2", error: "EACCES", only_on_names: true },
    Row { calls: "ftruncate,fallocate", error: "ENOSPC", only_on_names: true },
    Row { calls: "mkdir,mkdirat", error: "EACCES", only_on_names: true },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_start_is_survived_or_told_and_costs_nothing_stored() {
    if let Some(why) = missing() {
        return skipped("errors at start", why);
    }
    let most: u32 = setting("ROADSTEAD_INJECTIONS", 20).min(8);
    let mut random = random("errors at start");
    let mut pool = Pool::start(random.fork()).await;
    let kept = pool.push(&LAYERS, &[]);
    let digests = kept.digests().cloned().collect::<BTreeSet<_>>();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let setup = || Setup::of(&pool.hub).directory(&data);
    let roadstead = setup().start().await;
    pull(roadstead.at(), &kept.name, "latest").await;
    roadstead.settled().await;
    drop(roadstead);
    let (mut survived, mut told) = (0, 0);
    for row in AT_START {
        for nth in 1..=most {
            let what = format!("{} {} at start, the call {nth}", row.calls, row.error);
            let paths = names(&data, &digests);
            let arguments = arguments(&paths, row.calls, &fault(row, When::Nth(nth)));
            let program = launcher(folder.path(), &arguments, BINARY);
            match setup().program(program).try_start().await {
                Ok(roadstead) => {
                    pull(roadstead.at(), &kept.name, "latest").await;
                    survived += 1;
                }
                Err(failed) => {
                    let ended = failed.ended.unwrap_or_else(|| panic!("{what}: it hangs"));
                    assert!(!ended.success(), "{what}: it ends as if all were well");
                    let names_it = failed.log.contains(data.to_str().unwrap());
                    assert!(names_it, "{what}: it does not say where: {}", failed.log);
                    told += 1;
                }
            }
        }
        let roadstead = setup().start().await;
        assert_served(&roadstead, &pool, &digests, |_| true, row.calls).await;
    }
    println!("errors at start: {survived} survived, {told} told, nothing lost");
}
