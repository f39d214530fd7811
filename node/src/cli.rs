//! The command line: parse, do, print, and end with the code that says what became of it.

mod administration;
mod arguments;
mod configuration;
mod doctor;
mod objects;
mod session;
pub(crate) mod snapshot;
mod start;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use arguments::{Bench, Command, Config, Snapshot};
pub use arguments::{BenchEvents, BenchKv, BenchStorage, Cli, Common, EventsPart};

use crate::bench;
use crate::output::{self, Failure};
use crate::telemetry::{self, LogFormat, Program};

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; clap knows.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { output::USAGE } else { output::DONE });
        }
    };
    ExitCode::from(run(cli))
}

fn run(cli: Cli) -> u8 {
    let (program, log_format) = match &cli.command {
        Command::Start(start) => (Program::Node, start.log_format),
        _ => (Program::Command, LogFormat::Text),
    };
    telemetry::log_to_stderr(program, log_format);
    // Who answers others needs zenoh's threads, which it takes from a variable: the program is run anew.
    let serves = matches!(
        &cli.command,
        Command::Start(_) | Command::Bench(Bench::Kv(_) | Bench::Events(_) | Bench::EchoServer { .. })
    );
    if serves && let Err(error) = odgm_transport::zenoh::prepare_runtime() {
        tracing::warn!(%error, "zenoh runs with its default threads");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Failure::Refused(format!("no threads: {error}")).report(cli.common.output);
            return output::REFUSED;
        }
    };
    let format = cli.common.output;
    let code = match runtime.block_on(dispatch(cli)) {
        Ok(code) => code,
        Err(failure) => {
            failure.report(format);
            failure.code()
        }
    };
    // Threads of a session that hangs must not keep the program.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    code
}

async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let Cli { common, command } = cli;
    match command {
        Command::Start(start) => return start::run(start).await,
        Command::Config(Config::Show(layers)) => configuration::show(&layers)?,
        Command::Config(Config::Check(layers)) => configuration::check(&layers)?,
        Command::Bench(bench) => measure(&common, bench).await?,
        Command::Snapshot(Snapshot::Verify { file }) => snapshot::verify(common.output, &file)?,
        Command::Doctor(arguments) => return doctor::run(&arguments, common.output),
        command => {
            if let Command::Delete(delete) = &command {
                objects::check_delete(delete)?;
            }
            let connected = session::Connected::open(&common).await?;
            let done = ask(&connected, &common, command).await;
            connected.close().await;
            done?;
        }
    }
    Ok(output::DONE)
}

async fn ask(connected: &session::Connected, common: &Common, command: Command) -> Result<(), Failure> {
    let (client, format) = (&connected.client, common.output);
    match command {
        Command::Get(get) => objects::get(client, format, get).await,
        Command::Put(put) => objects::put(client, format, put).await,
        Command::Delete(delete) => objects::delete(client, format, delete).await,
        Command::Increment(increment) => objects::increment(client, format, increment).await,
        Command::Touch(touch) => objects::touch(client, format, touch).await,
        Command::List(list) => objects::list(client, format, list).await,
        Command::Watch(watch) => objects::watch(client, format, watch).await,
        Command::Txn(txn) => objects::txn(client, format, txn).await,
        Command::Meta { collection } => administration::meta(client, format, &collection).await,
        Command::Collection(command) => administration::collection(client, format, command).await,
        Command::Cluster(_) => administration::cluster_status(client, format).await,
        Command::Node(command) => administration::node(client, format, command).await,
        Command::Shard(command) => administration::shard(client, format, command).await,
        Command::Snapshot(Snapshot::List { shard }) => snapshot::list(client, format, &shard).await,
        Command::Snapshot(Snapshot::Export { shard, file }) => {
            snapshot::export(client, format, &shard, &file).await
        }
        Command::Snapshot(Snapshot::Import { file, collection, overwrite }) => {
            snapshot::import(client, format, &file, &collection, overwrite).await
        }
        Command::Start(_)
        | Command::Config(_)
        | Command::Bench(_)
        | Command::Snapshot(Snapshot::Verify { .. })
        | Command::Doctor(_) => Ok(()),
    }
}

/// Whoever interrupts it leaves no processes and no files behind.
async fn measure(common: &Common, bench: Bench) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = Box::pin(run_bench(common, bench)) => measured,
        _ = tokio::signal::ctrl_c() => Err(Failure::Refused("interrupted".to_owned())),
        _ = terminate.recv() => Err(Failure::Refused("terminated".to_owned())),
    }
}

async fn run_bench(common: &Common, bench: Bench) -> Result<(), Failure> {
    match bench {
        Bench::Kv(kv) => bench::kv(common, kv).await,
        Bench::EchoServer { listen, peers, key } => bench::echo::serve(&listen, peers, &key).await,
        Bench::Events(events) => bench::events::run(common, events).await,
        Bench::Storage(storage) => bench::storage::run(common, storage).await,
        Bench::Snapshot(_) => Err(Failure::Unsupported("odgm bench snapshot")),
    }
}
