//! Gates: bodies that pause after N bytes until the test lets them go on.

use std::sync::Arc;

use tokio::sync::watch;

use crate::seen::Seen;
use crate::target::Target;

/// Holds matching bodies until opened; dropping the last handle opens it, so that a test that
/// fails early does not hang.
#[derive(Debug, Clone)]
#[must_use = "a dropped gate is open"]
pub struct Gate(Arc<Hinge>);

#[derive(Debug)]
struct Hinge(Arc<Leaf>);

/// The moving part, known to the gate's owner and to the bodies it holds.
#[derive(Debug)]
struct Leaf {
    open: watch::Sender<bool>,
    /// Bodies paused here now.
    paused: watch::Sender<usize>,
}

/// Gates not yet opened.
#[derive(Debug, Default)]
pub(crate) struct Gates(Vec<Post>);

#[derive(Debug)]
struct Post {
    target: Target,
    after_bytes: u64,
    leaf: Arc<Leaf>,
}

/// One body's way through one gate.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Where in the body the gate stands.
    pub(crate) after_bytes: u64,
    leaf: Arc<Leaf>,
}

// === impl Gate ===

impl Gate {
    /// Lets every body go on, and those to come pass.
    pub fn open(&self) {
        self.0.0.open.send_replace(true);
    }

    /// Resolves as soon as a body is paused here.
    pub async fn waiting(&self) {
        self.waiting_for(1).await;
    }

    /// Resolves as soon as this many bodies are paused here.
    pub async fn waiting_for(&self, bodies: usize) {
        let mut paused = self.0.0.paused.subscribe();
        // The sender lives as long as this gate, so the wait cannot fail.
        let _ = paused.wait_for(|paused| *paused >= bodies).await;
    }

    /// Bodies paused here now.
    pub fn paused(&self) -> usize {
        *self.0.0.paused.borrow()
    }
}

impl Drop for Hinge {
    fn drop(&mut self) {
        self.0.open.send_replace(true);
    }
}

// === impl Gates ===

impl Gates {
    pub(crate) fn add(&mut self, target: Target, after_bytes: u64) -> Gate {
        let leaf =
            Arc::new(Leaf { open: watch::Sender::new(false), paused: watch::Sender::new(0) });
        self.0.retain(|post| !*post.leaf.open.borrow());
        self.0.push(Post { target, after_bytes, leaf: leaf.clone() });
        Gate(Arc::new(Hinge(leaf)))
    }

    /// The closed gates in the way of a body, nearest first.
    pub(crate) fn in_the_way(&self, seen: &Seen, carries_blob: bool) -> Vec<Pass> {
        let posts = self.0.iter().filter(|post| !*post.leaf.open.borrow());
        let mut passes: Vec<_> = posts
            .filter(|post| post.target.matches(seen, carries_blob))
            .map(|post| Pass { after_bytes: post.after_bytes, leaf: post.leaf.clone() })
            .collect();
        passes.sort_by_key(|pass| pass.after_bytes);
        passes
    }
}

// === impl Pass ===

impl Pass {
    /// Waits at the gate; counted as paused until it opens or the client leaves.
    pub(crate) async fn through(&self) {
        let mut open = self.leaf.open.subscribe();
        if *open.borrow() {
            return;
        }
        let _paused = Paused::at(&self.leaf);
        // A sender that is gone took its gate with it.
        let _ = open.wait_for(|open| *open).await;
    }
}

/// Keeps the count right when a body is dropped while paused.
struct Paused<'a>(&'a Leaf);

impl<'a> Paused<'a> {
    fn at(leaf: &'a Leaf) -> Self {
        leaf.paused.send_modify(|paused| *paused += 1);
        Self(leaf)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.paused.send_modify(|paused| *paused -= 1);
    }
}
