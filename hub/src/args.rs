//! The command line: every one of `Options`, and the images to publish.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hub::{Account, Counting, ImageSpec, Options};

/// A Docker Hub simulator: registry, token server and CDN on three loopback ports.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Where the registry listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    registry: SocketAddr,
    /// Where the token server listens
    #[arg(long, default_value = "127.0.0.1:0")]
    token: SocketAddr,
    /// Where the CDN listens
    #[arg(long, default_value = "127.0.0.1:0")]
    cdn: SocketAddr,
    /// Pulls per window for each anonymous address: a number, or none
    #[arg(long, default_value = "100", value_parser = limit)]
    limit: Limit,
    /// When a spent budget is whole again
    #[arg(long, default_value = "6h", value_parser = humantime::parse_duration)]
    window: Duration,
    /// An account; 200 pulls per window unless it says otherwise
    #[arg(long = "account", value_name = "USER:PASSWORD[:PULLS|none]", value_parser = account)]
    accounts: Vec<Account>,
    /// Ask for no tokens
    #[arg(long)]
    no_token: bool,
    /// When a token is refused
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// Serve blobs from the registry instead of redirecting to the CDN
    #[arg(long)]
    no_redirect: bool,
    /// Redirect blob GETs only, and answer blob HEADs at the registry
    #[arg(long)]
    no_redirect_heads: bool,
    /// When a signed CDN URL is refused
    #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
    url_lifetime: Duration,
    /// What counts as a pull
    #[arg(long, default_value = "per-get")]
    counting: Count,
    /// A repository that only accounts may see
    #[arg(long, value_name = "REPOSITORY")]
    private: Vec<String>,
    /// Take pushes and deletions; where tokens are asked for, from accounts alone
    #[arg(long)]
    writable: bool,
    /// An image to publish, such as library/alpine:3.20,layers=3,size=1MiB; further settings:
    /// seed=N, docker, single, sha512
    #[arg(long = "image", value_name = "REPOSITORY:TAG[,SETTING]...", value_parser = image)]
    images: Vec<ImageSpec>,
    /// Publish library/alpine, ubuntu, busybox (Docker types), many (12 layers), big (64 MiB)
    #[arg(long)]
    demo: bool,
}

/// Keeps clap from reading `Option` as "the flag may be absent".
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u64>);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Count {
    /// Each manifest GET
    PerGet,
    /// An index with its children
    PerImage,
}

// === impl Args ===

impl Args {
    pub(crate) fn options(self) -> Options {
        Options {
            registry: self.registry,
            token: self.token,
            cdn: self.cdn,
            limit: self.limit.0,
            window: self.window,
            accounts: self.accounts,
            require_token: !self.no_token,
            token_lifetime: self.token_lifetime,
            redirect_blobs: !self.no_redirect,
            redirect_heads: !self.no_redirect_heads,
            url_lifetime: self.url_lifetime,
            counting: match self.counting {
                Count::PerGet => Counting::PerGet,
                Count::PerImage => Counting::PerImage,
            },
            private: self.private,
            writable: self.writable,
        }
    }

    pub(crate) fn images(&self) -> Vec<ImageSpec> {
        let demo = if self.demo { demo() } else { Vec::new() };
        demo.into_iter().chain(self.images.iter().cloned()).collect()
    }
}

fn demo() -> Vec<ImageSpec> {
    let library = |name| ImageSpec::new(format!("library/{name}")).tag("latest");
    vec![
        library("alpine").tag("3.20").layers(1).layer_size(3 << 20),
        library("ubuntu").tag("24.04").layers(2).layer_size(8 << 20),
        library("busybox").layers(1).layer_size(1 << 20).docker(),
        library("many").layers(12).layer_size(256 << 10),
        library("big").layers(1).layer_size(64 << 20).single(),
    ]
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => {
            number.parse().map(|pulls| Limit(Some(pulls))).map_err(|_| "a number or none".into())
        }
    }
}

fn account(text: &str) -> Result<Account, String> {
    let (user, rest) = text.split_once(':').ok_or("USER:PASSWORD")?;
    let Some((password, pulls)) = rest.split_once(':') else {
        return Ok(Account::new(user, rest));
    };
    let limit = limit(pulls)?.0;
    Ok(Account { limit, ..Account::new(user, password) })
}

fn image(text: &str) -> Result<ImageSpec, String> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    let (repository, tag) = name.rsplit_once(':').ok_or("REPOSITORY:TAG comes first")?;
    words.try_fold(ImageSpec::new(repository).tag(tag), setting)
}

fn setting(spec: ImageSpec, word: &str) -> Result<ImageSpec, String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.parse::<usize>().map_err(|_| format!("{name}: a number"));
    Ok(match name {
        "layers" => spec.layers(number()?),
        "seed" => spec.seed(number()? as u64),
        "size" => spec.layer_size(size(value)?),
        "docker" => spec.docker(),
        "single" => spec.single(),
        "sha512" => spec.sha512_layers(),
        _ => return Err(format!("{name}: no such setting")),
    })
}

fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("{other}: not B, KiB, MiB or GiB")),
    };
    let count: usize = digits.parse().map_err(|_| format!("{text}: no size"))?;
    count.checked_mul(unit).ok_or(format!("{text}: too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_with_its_settings() {
        let spec = image("library/alpine:3.20,layers=2,size=1MiB,docker").unwrap();
        let wanted = ImageSpec::new("library/alpine").tag("3.20").layers(2).layer_size(1 << 20);
        assert_eq!(spec, wanted.docker());
        assert!(image("library/alpine").is_err());
        assert!(image("library/alpine:3.20,colour=red").is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
