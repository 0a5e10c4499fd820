//! A filter of one's own: Roadstead as a library, with a rule that it does not have.
//!
//! Pulls of tags called `latest` are refused outside the hours of work, say; here simply always.
//! Run it with `cargo run --example custom_filter -- --config conf/roadstead.yaml`, and see
//! `curl -i localhost:5000/v2/alpine/manifests/latest`.

use std::process::ExitCode;

use async_trait::async_trait;
use http::{StatusCode, request::Parts};
use roadstead::{
    config::{Config, Overrides},
    filter::{Context, Flow, Refusal, RequestFilter},
    protocol::{ErrorCode, Reference, Route},
    server,
};

/// Refuses the tag `latest`: builds should name what they build on.
struct NoLatest;

#[async_trait]
impl RequestFilter for NoLatest {
    fn name(&self) -> &'static str {
        "no-latest"
    }

    async fn filter(&self, _request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        let route = context.target.as_ref().map(|target| &target.route);
        if let Some(Route::Manifest { reference: Reference::Tag(tag), .. }) = route
            && tag.as_str() == "latest"
        {
            return Err(Refusal::Custom {
                status: StatusCode::FORBIDDEN,
                code: ErrorCode::Denied,
                message: "pull a version instead of latest".to_owned(),
            });
        }
        Ok(Flow::Continue)
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let file = match (arguments.next(), arguments.next()) {
        (Some(flag), Some(file)) if flag == "--config" => Some(file),
        _ => None,
    };
    let read =
        move || Config::from_sources(file.as_deref().map(AsRef::as_ref), &Overrides::default());
    let served = match read() {
        Ok(config) => {
            let server = server::builder(config).filter(NoLatest).reloading(read);
            server.run().map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}
