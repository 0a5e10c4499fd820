//! One image of a job, from its name to its last layer.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    Means, caller,
    contents::{Contents, Visit},
    job::Job,
    layers::{self, Came, Place},
    report::{ImageState, LayerState},
};
use crate::{blob::Ask, inventory::ImageName, protocol::Digest, upstream::Upstream};

/// Has the image, or says what it would cost, and says how that ended.
pub(super) async fn warm(means: Arc<Means>, job: Arc<Job>, index: usize) {
    let outcome = carry_out(&means, &job, index).await;
    job.end_image(index, outcome);
}

async fn carry_out(means: &Arc<Means>, job: &Arc<Job>, index: usize) -> Result<ImageState, String> {
    let image = job.order.images.get(index).ok_or("it is not of this job")?;
    let name = image.name.clone()?;
    let upstream = means.upstream(&name.upstream);
    let upstream = &upstream.ok_or_else(|| format!("there is no upstream {}", name.upstream))?;
    if !upstream.config().admits(name.repository.as_str()) {
        let (repository, key) = (&name.repository, upstream.name());
        return Err(format!(
            "the repository {repository} may not be pulled here (allow, deny of {key})"
        ));
    }
    job.image(index, |image| image.state = ImageState::Resolving);
    let visit = Visit::new(means, job, index, upstream, &name);
    let contents = visit.contents(&name.reference).await?;
    job.list_layers(index, &contents.blobs);
    let Contents { blobs, mut problems, .. } = contents;
    if job.order.dry_run {
        price(means, job, index, &blobs).await;
    } else {
        problems.extend(fetch(means, job, index, upstream, &name, &blobs).await);
    }
    end(job, index, problems)
}

fn end(job: &Job, index: usize, problems: Vec<String>) -> Result<ImageState, String> {
    if let Some((first, others)) = problems.split_first() {
        return Err(match others.len() {
            0 => first.clone(),
            count => format!("{first} (and {count} more)"),
        });
    }
    let mut is_cached = false;
    job.image(index, |image| {
        let is_there = image.layers.iter().all(|layer| layer.state == LayerState::Cached);
        is_cached = is_there && image.spent == 0 && !image.is_estimate && image.to_spend == 0;
    });
    Ok(if is_cached { ImageState::Cached } else { ImageState::Done })
}

/// Has all layers; what went wrong with some of them.
async fn fetch(
    means: &Arc<Means>,
    job: &Arc<Job>,
    index: usize,
    upstream: &Arc<Upstream>,
    name: &ImageName,
    blobs: &[(Digest, u64)],
) -> Vec<String> {
    let mut layers = JoinSet::new();
    for (layer, &(digest, bytes)) in blobs.iter().enumerate() {
        let ask = Ask {
            upstream: Arc::clone(upstream),
            repository: name.repository.clone(),
            digest,
            caller: caller(upstream),
        };
        let place = Place { image: index, layer, bytes };
        let (means, job) = (Arc::clone(means), Arc::clone(job));
        layers.spawn(async move { one(&means, &job, place, &ask).await });
    }
    let mut problems = Vec::new();
    while let Some(ended) = layers.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(problem),
            Err(_) => problems.push("a layer ended halfway; the log says why".to_owned()),
        }
    }
    problems
}

/// One layer, when it is its turn.
async fn one(means: &Means, job: &Job, place: Place, ask: &Ask) -> Result<(), String> {
    // Neither is ever closed.
    let _of_job = job.places.acquire().await;
    let _of_all = means.places.acquire().await;
    match layers::warm(means, job, place, ask).await {
        Ok(Came::Cached) => Ok(()),
        Ok(Came::Fetched(bytes)) => {
            job.image(place.image, |image| image.fetched += bytes);
            Ok(())
        }
        Err(problem) => {
            let line = format!("{}: {problem}", ask.digest);
            job.layer_failed(place.image, place.layer, problem);
            Err(line)
        }
    }
}

/// What its layers would cost.
async fn price(means: &Means, job: &Job, index: usize, blobs: &[(Digest, u64)]) {
    for (layer, &(digest, bytes)) in blobs.iter().enumerate() {
        if means.blobs.holds(digest).await {
            job.progress(index, layer, LayerState::Cached, bytes);
            continue;
        }
        let left_over = means.blobs.left_over(&digest);
        job.progress(index, layer, LayerState::Waiting, left_over);
        if job.counts(digest) {
            job.image(index, |image| image.to_fetch += bytes.saturating_sub(left_over));
        }
    }
}
