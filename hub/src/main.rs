//! The simulator as a program: starts the three servers, publishes images, runs until Ctrl-C.

mod args;

use std::process::ExitCode;

use clap::Parser as _;
use hub::{Hub, StartError};
use tracing_subscriber::EnvFilter;

use crate::args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}: {}", source(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), StartError> {
    let images = args.images();
    let hub = Hub::start_with(args.options()).await?;
    let published: Vec<_> = images.iter().map(|spec| (spec, hub.push(spec))).collect();
    // Printed last: who reads these lines may pull.
    println!("registry  {}", hub.registry_url());
    println!("token     {}", hub.token_realm());
    println!("cdn       http://{}", hub.cdn());
    for (spec, image) in published {
        println!("image     {}:{} {}", image.repository, spec.tags.join(","), image.digest);
    }
    // Where the signal cannot be awaited the program would end at once; better it runs on.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn source(error: &StartError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}
