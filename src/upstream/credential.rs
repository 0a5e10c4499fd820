//! One account's login, wherever it is kept, as it is now.
//!
//! Files are looked at again when they change, helpers are asked again after a
//! while. A load runs in a task of its own, one for all who wait for it. What
//! goes wrong is said once in the log, and once that it is well again; a login
//! that was good stays in use while its file is half written.

mod docker_config;
mod helper;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::docker_config::Found;
use crate::config::{Account, Secret, Stamp};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a helper's answer is used before it is asked again, beside the requests.
const HELPER_HOLDS: Duration = Duration::from_secs(300);

/// How long what could not be loaded is not tried again, unless its file changes.
const PROBLEM_HOLDS: Duration = Duration::from_secs(30);

/// The longest file that is read.
const FILE_BYTES: u64 = 1 << 20;

/// One account's login.
#[derive(Debug)]
pub(super) struct Credential(Arc<Source>);

/// A login as it is now.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
    /// Changes whenever the name or the password does.
    pub(super) version: u64,
}

/// Why there is none: the account, where it is kept, and what to do; never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the account {label} has no login: {what}")]
pub(super) struct Problem {
    label: String,
    what: String,
}

#[derive(Debug)]
struct Source {
    account: Account,
    label: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Login>,
    /// What the last load came to, if it failed.
    problem: Option<Problem>,
    loaded: Option<Instant>,
    /// When the file was last looked at, and what it was when it was read.
    looked: Option<Instant>,
    stamp: Option<Stamp>,
    /// There while a load runs; it is dropped at its end.
    loading: Option<watch::Receiver<()>>,
    /// The registry refused what is known.
    is_refused: bool,
    versions: u64,
}

/// Why a login is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It was loaded some time ago, and holds meanwhile.
    Old,
    /// What is known, if anything is, is not the one any more.
    Changed,
}

// === impl Credential ===

impl Credential {
    pub(super) fn new(account: Account) -> Self {
        let label = account.label();
        Self(Arc::new(Source { account, label, state: Mutex::default() }))
    }

    /// What is configured of it.
    pub(super) fn account(&self) -> &Account {
        &self.0.account
    }

    /// For metrics and logs.
    pub(super) fn label(&self) -> &str {
        &self.0.label
    }

    /// True if `login` answers at once.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.0.account, Account::Password { .. }) || self.0.lock().known.is_some()
    }

    /// Begins to load it, if that is due; waits for nothing.
    pub(super) fn prepare(&self) {
        if self.0.due().is_some() {
            self.0.load();
        }
    }

    /// The login as it is now. A caller that leaves ends nothing.
    pub(super) async fn login(&self) -> Result<Login, Problem> {
        let source = &self.0;
        if let Some(due) = source.due() {
            let loading = source.load();
            // What a helper said holds until it has said something else.
            let holds = due == Due::Old || source.is_slow();
            let known = source.lock().known.clone().filter(|_| holds);
            if let Some(login) = known {
                return Ok(login);
            }
            wait(loading).await;
        } else if let Some(loading) = source.lock_loading() {
            wait(loading).await;
        }
        let state = source.lock();
        match (&state.known, &state.problem) {
            (Some(login), _) => Ok(login.clone()),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Err(source.problem("it could not be loaded".to_owned())),
        }
    }

    /// The registry refused the login of that version: it is loaded anew.
    pub(super) fn refused(&self, version: u64) {
        let mut state = self.0.lock();
        if state.known.as_ref().is_some_and(|login| login.version == version) {
            state.is_refused = true;
        }
    }
}

async fn wait(mut loading: watch::Receiver<()>) {
    // Nothing is ever sent: the end of the load is the end of its sender.
    let _ = loading.changed().await;
}

// === impl Source ===

impl Source {
    /// True if its login takes time to be had.
    fn is_slow(&self) -> bool {
        matches!(self.account, Account::Helper { .. })
    }

    fn path(&self) -> Option<&Path> {
        match &self.account {
            Account::File { path, .. } | Account::DockerConfig { path, .. } => Some(path),
            Account::Password { .. } | Account::Helper { .. } => None,
        }
    }

    /// Why to load it, anew or for the first time.
    fn due(&self) -> Option<Due> {
        let mut state = self.lock();
        if state.loading.is_some() {
            return None;
        }
        let Some(loaded) = state.loaded else { return Some(Due::Changed) };
        if state.is_refused {
            state.is_refused = false;
            return Some(Due::Changed);
        }
        let holds = if state.problem.is_some() { PROBLEM_HOLDS } else { HELPER_HOLDS };
        let old = (loaded.elapsed() >= holds).then_some(Due::Old);
        let Some(path) = self.path() else {
            return old.filter(|_| self.is_slow());
        };
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return None;
        }
        state.looked = Some(Instant::now());
        // A look at a file's inode, now and then; the reading is done elsewhere. A configuration of
        // docker's may name a helper, so that it is never known for ever.
        if Stamp::of(path) == state.stamp { old } else { Some(Due::Changed) }
    }

    /// Starts a load, or joins the one that runs.
    fn load(self: &Arc<Self>) -> watch::Receiver<()> {
        let mut state = self.lock();
        if let Some(loading) = &state.loading {
            return loading.clone();
        }
        let (done, loading) = watch::channel(());
        state.loading = Some(loading.clone());
        drop(state);
        let source = Arc::clone(self);
        tokio::spawn(async move {
            let stamp = source.path().and_then(Stamp::of);
            let loaded = source.read().await;
            source.keep(loaded, stamp);
            drop(done);
        });
        loading
    }

    fn lock_loading(&self) -> Option<watch::Receiver<()>> {
        let state = self.lock();
        state.loading.clone().filter(|_| state.known.is_none())
    }

    async fn read(&self) -> Result<(String, Secret), String> {
        match &self.account {
            Account::Password { username, password } => Ok((username.clone(), password.clone())),
            Account::File { username, path } => {
                let text = read_file(path).await?;
                let text = String::from_utf8(text).map_err(|_| told(path, "is not UTF-8 text"))?;
                let password = text.trim_end_matches(['\r', '\n']);
                if password.is_empty() {
                    return Err(told(path, "is empty; write the password there"));
                }
                Ok((username.clone(), Secret::new(password)))
            }
            Account::DockerConfig { path, servers } => {
                let json = read_file(path).await?;
                let found = docker_config::find(&json, servers);
                match found.map_err(|problem| told(path, &problem))? {
                    Found::Login { username, password } => Ok((username, password)),
                    Found::Helper { program, server } => {
                        ask_helper(&program, &server, Duration::from_secs(10)).await
                    }
                }
            }
            Account::Helper { program, server, timeout } => {
                ask_helper(program, server, *timeout).await
            }
        }
    }

    /// Takes note of what a load came to, and says so if it is news.
    fn keep(&self, loaded: Result<(String, Secret), String>, stamp: Option<Stamp>) {
        let mut state = self.lock();
        state.loading = None;
        state.loaded = Some(Instant::now());
        state.stamp = stamp;
        match loaded {
            Ok((username, password)) => {
                let was_known = state.known.as_ref();
                let is_new = was_known.is_none_or(|known| {
                    (&known.username, &known.password) != (&username, &password)
                });
                if is_new {
                    state.versions += 1;
                    let version = state.versions;
                    state.known = Some(Login { username, password, version });
                }
                if state.problem.take().is_some() {
                    tracing::info!(account = %self.label, "an account's login can be had again");
                }
            }
            Err(what) => {
                let problem = self.problem(what);
                if state.problem.as_ref() != Some(&problem) {
                    let goes_on = state.known.is_some();
                    tracing::warn!(
                        account = %self.label, %problem, goes_on,
                        remedy = "mend the file or credential helper that the account under credentials names; it is read again by itself",
                        "an account's login can't be had"
                    );
                }
                state.problem = Some(problem);
            }
        }
    }

    fn problem(&self, what: String) -> Problem {
        Problem { label: self.label.clone(), what }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask_helper(
    program: &str,
    server: &str,
    patience: Duration,
) -> Result<(String, Secret), String> {
    let answer = helper::ask(program, server, patience).await;
    answer.map_err(|problem| format!("the credential helper {program} {problem}"))
}

async fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    use tokio::io::AsyncReadExt as _;

    let read = async {
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(FILE_BYTES).read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    read.await.map_err(|error| told(path, &format!("can't be read: {error}")))
}

fn told(path: &Path, problem: &str) -> String {
    format!("{} {problem}", path.display())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicU64, Ordering},
    };

    use tokio::task::JoinSet;

    use super::*;

    fn in_file(text: &str) -> (tempfile::TempDir, Credential) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, text).unwrap();
        (folder, Credential::new(Account::File { username: "alice".to_owned(), path }))
    }

    /// As if so much time had passed.
    fn age(credential: &Credential, by: Duration) {
        let mut state = credential.0.lock();
        state.looked = state.looked.and_then(|at| at.checked_sub(by));
        state.loaded = state.loaded.and_then(|at| at.checked_sub(by));
    }

    #[tokio::test]
    async fn a_password_that_is_rotated_is_picked_up() {
        let (folder, credential) = in_file("one\n");
        let path = folder.path().join("password");
        assert!(!credential.is_ready());
        let first = credential.login().await.unwrap();
        assert_eq!((first.password.expose(), first.username.as_str()), ("one", "alice"));
        assert!(credential.is_ready());
        age(&credential, LOOK_EVERY);
        assert_eq!(credential.login().await.unwrap().version, first.version);

        let new = folder.path().join("new");
        fs::write(&new, "two").unwrap();
        fs::rename(&new, &path).unwrap();
        age(&credential, LOOK_EVERY);
        let second = credential.login().await.unwrap();
        assert_eq!(second.password.expose(), "two");
        assert_ne!(second.version, first.version);
    }

    /// It may name a helper, which may hang: nobody waits for what only may have changed.
    #[tokio::test]
    async fn docker_s_configuration_is_read_again_beside_the_requests_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        // alice:a
        let login = r#"{"auths": {"ghcr.io": {"auth": "YWxpY2U6YQ=="}}}"#;
        fs::write(&path, login).unwrap();
        let servers = vec!["ghcr.io".to_owned()];
        let account = Account::DockerConfig { path: path.clone(), servers };
        let credential = Credential::new(account);
        assert_eq!(credential.0.due(), Some(Due::Changed), "nothing is known yet");
        credential.login().await.unwrap();
        assert_eq!(credential.0.due(), None);
        age(&credential, HELPER_HOLDS);
        assert_eq!(credential.0.due(), Some(Due::Old));
        fs::write(&path, format!("{login} ")).unwrap();
        age(&credential, LOOK_EVERY);
        assert_eq!(credential.0.due(), Some(Due::Changed));
    }

    #[tokio::test]
    async fn a_half_written_or_lost_file_leaves_what_was_good() {
        let (folder, credential) = in_file("good");
        let path = folder.path().join("password");
        let good = credential.login().await.unwrap();
        fs::write(&path, "").unwrap();
        age(&credential, LOOK_EVERY);
        assert_eq!(credential.login().await.unwrap().version, good.version);
        assert!(credential.0.lock().problem.is_some());
        fs::remove_file(&path).unwrap();
        age(&credential, LOOK_EVERY);
        assert_eq!(credential.login().await.unwrap().version, good.version);
        fs::write(&path, "better").unwrap();
        age(&credential, LOOK_EVERY);
        assert_eq!(credential.login().await.unwrap().password.expose(), "better");
        assert!(credential.0.lock().problem.is_none());
    }

    #[tokio::test]
    async fn what_can_not_be_had_is_told_and_not_tried_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let script = helper::tests::script(
            folder.path(),
            &format!("echo x >> {}; echo not in the keychain; exit 1", count.display()),
        );
        let (server, timeout) = ("ghcr.io".to_owned(), Duration::from_secs(20));
        let credential = Credential::new(Account::Helper { program: script, server, timeout });
        let runs = || fs::read_to_string(&count).map_or(0, |text| text.lines().count());
        for _ in 0..3 {
            let problem = credential.login().await.unwrap_err().to_string();
            assert!(problem.contains("says: not in the keychain"), "{problem}");
        }
        assert_eq!(runs(), 1);
        age(&credential, PROBLEM_HOLDS);
        credential.login().await.unwrap_err();
        assert_eq!(runs(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_helper_runs_once_for_all_and_again_when_it_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let text = format!(
            r#"echo x >> {0}; printf '{{"Username":"bob","Secret":"pw%s"}}' "$(wc -l < {0})""#,
            count.display()
        );
        let program = helper::tests::script(folder.path(), &text);
        let (server, timeout) = ("ghcr.io".to_owned(), Duration::from_secs(20));
        let account = Account::Helper { program, server, timeout };
        let credential = Arc::new(Credential::new(account));
        let right = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..16 {
            let (credential, right) = (Arc::clone(&credential), Arc::clone(&right));
            callers.spawn(async move {
                let login = credential.login().await.unwrap();
                right.fetch_add(u64::from(login.password.expose() == "pw1"), Ordering::Relaxed);
            });
        }
        callers.join_all().await;
        assert_eq!(right.load(Ordering::Relaxed), 16);
        let first = credential.login().await.unwrap();
        credential.refused(first.version);
        // The old one is used until the helper has answered.
        let deadline = Instant::now() + Duration::from_secs(20);
        while credential.login().await.unwrap().password.expose() != "pw2" {
            assert!(Instant::now() < deadline, "the helper is not asked again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let second = credential.login().await.unwrap();
        assert_ne!(second.version, first.version);
        assert!(!format!("{credential:?} {second:?}").contains("pw2"));
    }
}
