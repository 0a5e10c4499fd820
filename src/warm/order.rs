//! An order: what was asked for, understood.
//!
//! A request that makes no sense as a whole is refused. An image that does not
//! is told of in its own line, for a list is rarely of one hand, and the others
//! are wanted all the same.

use std::collections::HashSet;

use super::report::WarmRequest;
use crate::{
    inventory::{ImageName, Names, Wanted},
    protocol::platform::{BadPlatform, Platforms},
};

/// The most images of one job.
pub const MOST_IMAGES: usize = 1000;

/// Layers fetched at the same time where the request does not say.
pub(super) const PARALLEL: usize = 4;

/// The most of them.
pub const MOST_PARALLEL: usize = 32;

/// The longest reference that is looked at; a name has 255 characters, a tag 128, a digest 135.
const LONGEST: usize = 1024;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) images: Vec<Image>,
    pub(super) platforms: Platforms,
    pub(super) parallel: usize,
    pub(super) dry_run: bool,
    /// Manifests that are not cached are fetched.
    pub(super) reads: bool,
    pub(super) spend_reserve: bool,
}

/// One image.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) reference: String,
    /// Its name, or what is wrong with it.
    pub(super) name: Result<ImageName, String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It names nothing.
    #[error("no image is named; list some under images")]
    NoImages,
    /// It names too much.
    #[error("{0} images are more than {MOST_IMAGES}; ask in several steps")]
    TooManyImages(usize),
    /// So many at a time can't be.
    #[error("parallel: {0} is not from 1 to {MOST_PARALLEL}; write one of these")]
    Parallel(usize),
    /// A platform is none.
    #[error("platforms: {0}")]
    Platform(#[from] BadPlatform),
}

// === impl Order ===

impl Order {
    pub(super) fn new(request: WarmRequest, names: &Names) -> Result<Self, BadRequest> {
        let count = request.images.len();
        if count > MOST_IMAGES {
            return Err(BadRequest::TooManyImages(count));
        }
        let parallel = request.parallel.unwrap_or(PARALLEL);
        if !(1..=MOST_PARALLEL).contains(&parallel) {
            return Err(BadRequest::Parallel(parallel));
        }
        let platforms = Platforms::parse(&request.platforms)?;
        let mut seen = HashSet::new();
        let images = request.images.iter().map(|text| Image::read(text.trim(), names));
        let images: Vec<_> = images.filter(|image| seen.insert(image.key())).collect();
        if images.is_empty() {
            return Err(BadRequest::NoImages);
        }
        Ok(Self {
            images,
            platforms,
            parallel,
            dry_run: request.dry_run,
            reads: !request.dry_run || request.read_manifests,
            spend_reserve: request.spend_reserve,
        })
    }
}

// === impl Image ===

impl Image {
    fn read(text: &str, names: &Names) -> Self {
        if text.len() > LONGEST {
            let reference = text.chars().take(60).collect();
            let problem = "the reference is too long; write it like alpine:3.20".to_owned();
            return Self { reference, name: Err(problem) };
        }
        let name = match names.resolve(text) {
            Ok(Wanted::Image(name)) => Ok(name),
            Ok(Wanted::Object(_)) => {
                Err("a digest alone says not where it is; write it like alpine@sha256:…".to_owned())
            }
            Ok(Wanted::Tags(_)) => {
                Err("a pattern names no image; write each of them by its name".to_owned())
            }
            Err(error) => Err(error.reason()),
        };
        Self { reference: text.to_owned(), name }
    }

    /// The same for two spellings of one image.
    fn key(&self) -> String {
        match &self.name {
            Ok(name) => full(name),
            Err(_) => format!("?{}", self.reference),
        }
    }
}

/// An image's full name: `docker.io/library/alpine:3.20`, or with `@` a digest.
pub(super) fn full(name: &ImageName) -> String {
    let joint = if name.reference.tag().is_some() { ':' } else { '@' };
    format!("{}/{}{joint}{}", name.upstream, name.repository, name.reference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn order(request: WarmRequest) -> Result<Order, BadRequest> {
        let config = Config::parse("upstreams: [{name: docker.io}, {name: ghcr.io}]", "test");
        Order::new(request, &Names::new(&config.unwrap().upstreams))
    }

    fn images(images: &[&str]) -> WarmRequest {
        let images = images.iter().map(|&image| image.to_owned()).collect();
        WarmRequest { images, ..WarmRequest::default() }
    }

    #[test]
    fn spellings_of_one_image_are_one_and_a_bad_one_is_told_of() {
        let texts =
            ["alpine", " docker.io/library/alpine:latest ", "quay.io/a/b", "a*", "ghcr.io/a/b"];
        let order = order(images(&texts)).unwrap();
        let names: Vec<_> = order.images.iter().map(|it| it.name.as_ref().map(full)).collect();
        assert_eq!(names[0], Ok("docker.io/library/alpine:latest".to_owned()));
        assert!(names[1].as_ref().unwrap_err().contains("quay.io is not an upstream"));
        assert!(names[2].as_ref().unwrap_err().contains("pattern"));
        assert_eq!(names[3], Ok("ghcr.io/a/b:latest".to_owned()));
        assert_eq!(names.len(), 4);
        assert!(order.reads && order.parallel == PARALLEL);
    }

    #[test]
    fn a_request_that_makes_no_sense_is_refused() {
        assert_eq!(order(images(&[])).unwrap_err(), BadRequest::NoImages);
        let many = WarmRequest { images: vec!["a".to_owned(); 1001], ..WarmRequest::default() };
        assert_eq!(order(many).unwrap_err(), BadRequest::TooManyImages(1001));
        let none = WarmRequest { parallel: Some(0), ..images(&["a"]) };
        assert_eq!(order(none).unwrap_err(), BadRequest::Parallel(0));
        let odd = WarmRequest { platforms: vec!["linux".to_owned()], ..images(&["a"]) };
        assert!(matches!(order(odd), Err(BadRequest::Platform(_))));
    }

    #[test]
    fn hostile_references_are_told_of_and_panic_nobody() {
        for text in
            ["", "\u{0}", "é", "sha256:0", ":", "@", "a@b@c", "/", "a//b", &"x".repeat(5000)]
        {
            let order = order(images(&[text])).unwrap();
            assert!(order.images[0].name.is_err(), "{text:?}");
            assert!(order.images[0].reference.len() <= LONGEST);
        }
    }
}
