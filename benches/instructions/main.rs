//! What a request on the hit path costs in instructions, against what it cost when that was last accepted.
//!
//! `cargo bench --bench instructions`, with `-- --bless` to accept what is measured. The program itself, `roadstead
//! serve`, runs under valgrind's callgrind before the simulator of Docker Hub; after everything was asked for once, its
//! counter is read before and after batches of one kind of request. Where a machine's load and clock make times useless,
//! counts come back within a percent, so that [`baseline::Limit::USUAL`] tells a change of the code from chance.
//! Only what runs in user space is counted: what the kernel does for a write or an accept is not in it.
//!
//! What would tell one machine from another is taken out of the way:
//!
//! - The code that is picked by the CPU's features. valgrind shows the program a CPU with AVX2 at most, without SHA
//!   extensions. glibc is told to ignore what goes beyond plain x86-64 (`callgrind::GLIBC_TUNABLES`), not least `rep
//!   movsb`, of which callgrind counts each byte as an instruction. What is left is httparse's scan of heads, 0.3 % of a
//!   request; nothing is hashed, compressed or encrypted on the hit path. On a CPU without AVX2 it takes its SSE 4.2 way.
//! - The number of CPUs: the server is given one, and so has one worker.
//! - What the server does by the clock (Pingora's timers tick every 10 ms), which a slow machine has more of per
//!   request: it is counted while nothing is asked for, and taken off by the time that a batch took.
//! - Work that is put off (the index's commits, the caches' housekeeping) and falls into one batch or another: of some
//!   rounds the least counts, for such work is only ever added.
//!
//! Other architectures and other compilers count differently. A baseline holds for its target alone, and names the
//! compiler that it was measured with.

mod args;
mod baseline;
mod binary;
mod callgrind;
mod client;
mod interrupt;
mod kinds;
mod report;
mod server;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use hub::{Hub, Options};

use args::Args;
use baseline::Baseline;
use binary::Binary;
use client::Client;
use interrupt::Interrupt;
use kinds::{Kind, Published};
use report::Measured;
use server::Server;

/// Batches of each kind, of which the least counts.
const ROUNDS: usize = 5;

/// How long nothing is asked for, as often as there are rounds, to see what the server does anyway.
const IDLE: Duration = Duration::from_secs(1);

/// With `--quick`, a batch is this many times smaller.
const QUICK: u32 = 20;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let binary = Binary::find()?;
    let unfit = callgrind::missing().or_else(|| binary.unfit().filter(|_| !args.quick));
    if let Some(unfit) = unfit {
        println!("instructions: nothing is measured: {unfit}");
        return Ok(exit_code(!args.require));
    }
    let measured = measure(&binary, args)?;
    let found = Baseline::new(binary.rustc(), report::counts(&measured));
    if args.bless {
        report::print(&measured, None);
        found.write(&args.baseline)?;
        println!("\nwritten: {}", args.baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = Baseline::read(&args.baseline)?;
    let comparable = !args.quick && baseline.target == found.target;
    report::print(&measured, Some(&baseline).filter(|_| comparable));
    if !comparable {
        println!("\nno verdict: the baseline is of a full run on {}", baseline.target);
        return Ok(exit_code(!args.require));
    }
    Ok(exit_code(report::judge(&measured, &baseline, &found)))
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(binary: &Binary, args: &Args) -> Result<Vec<Measured>> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().context("starting the runtime")?;
    let options = Options { limit: None, ..Options::default() };
    let hub = runtime.block_on(Hub::start_with(options)).context("starting the simulator")?;
    let published = Published::on(&hub);
    let interrupt = Interrupt::listen(runtime.handle())?;
    let measured = served(binary, &hub, &published, args, &interrupt);
    // Else it fails for what a signal did to it.
    interrupt.check()?;
    measured
}

fn served(
    binary: &Binary,
    hub: &Hub,
    published: &Published,
    args: &Args,
    interrupt: &Interrupt,
) -> Result<Vec<Measured>> {
    let server = Server::start(binary.path(), hub, interrupt.clone())?;
    let kinds = kinds::all(server.address(), published);
    let measured = counted(&server, kinds, args);
    measured
        .map_err(|error| anyhow!("{error:#}; the server's last words:\n{}", server.last_words()))
}

fn counted(server: &Server, kinds: Vec<Kind>, args: &Args) -> Result<Vec<Measured>> {
    warm(server, &kinds)?;
    server.callgrind().begin()?;
    let (rounds, share) = if args.quick { (1, QUICK) } else { (ROUNDS, 1) };
    // The first round of all is for what is set up once, such as the allocator's pages.
    for kind in &kinds {
        batch(server, kind, QUICK, 0.0)?;
    }
    let mut idle = f64::INFINITY;
    for _ in 0..ROUNDS {
        idle = idle.min(idle_per_second(server)?);
    }
    println!("by the clock alone: {idle:.0} instructions a second, taken off below");
    let mut measured: Vec<_> = kinds.into_iter().map(Measured::new).collect();
    for _ in 0..rounds {
        for one in &mut measured {
            let count = batch(server, one.kind(), share, idle)?;
            one.add(count);
            if let Some(folder) = &args.keep {
                server.callgrind().keep(folder, one.kind().name)?;
            }
        }
    }
    Ok(measured)
}

/// Asks for everything until it comes from the cache.
fn warm(server: &Server, kinds: &[Kind]) -> Result<()> {
    for kind in kinds {
        let deadline = Instant::now() + server::PATIENCE;
        while !Client::open(server.address())?.ask(kind)?.is_hit {
            ensure!(Instant::now() < deadline, "{} is not cached", kind.name);
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Instructions per unit of `kind`, in one batch `share` times smaller than usual.
fn batch(server: &Server, kind: &Kind, share: u32, idle: f64) -> Result<f64> {
    let requests = (kind.requests / share).max(1);
    let mut client = Client::open(server.address())?;
    client.ask(kind)?;
    let callgrind = server.callgrind();
    callgrind.zero()?;
    let began = Instant::now();
    for _ in 0..requests {
        if kind.is_fresh {
            client = Client::open(server.address())?;
        }
        let answer = client.ask(kind)?;
        ensure!(answer.is_hit, "{} did not come from the cache", kind.name);
    }
    let count = callgrind.count()?;
    let by_request = count as f64 - idle * began.elapsed().as_secs_f64();
    Ok(by_request / f64::from(requests) / kind.units)
}

fn idle_per_second(server: &Server) -> Result<f64> {
    let callgrind = server.callgrind();
    callgrind.zero()?;
    let began = Instant::now();
    thread::sleep(IDLE);
    let count = callgrind.count()?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
