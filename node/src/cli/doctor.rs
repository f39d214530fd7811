//! `odgm doctor`: a look at the data of a node that does not run, and what can be done about it.

use odgm_storage::Error;
use odgm_storage::composite::LogLayer;
use odgm_storage::doctor::{Doctor, Finding, Part, Remedy, Report, Severity};
use serde_json::json;

use super::arguments::{self, LayerMove};
use crate::identity::Identity;
use crate::output::{self, Failure, Format};

/// Checks, repairs or moves a layer; gives the exit code: 0 when nothing is damaged, else 1.
pub(super) fn run(arguments: &arguments::Doctor, format: Format) -> Result<u8, Failure> {
    let format = if arguments.json { Format::Json } else { format };
    let scratch = match &arguments.scratch {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.map_err(|error| Failure::Refused(format!("scratch directory: {error}")))?;
    let doctor = Doctor::open(&arguments.data, scratch.path()).map_err(|error| match error {
        Error::Locked { .. } => {
            Failure::Refused(format!("a node runs on {}: stop it first ({error})", arguments.data.display()))
        }
        other => refused(&other),
    })?;
    if let Some(wanted) = &arguments.migrate {
        return migrate(&doctor, *wanted, format);
    }
    let (done, mut report) = if arguments.repair {
        let repair = doctor.repair(&LogLayer::default()).map_err(|error| refused(&error))?;
        (repair.done, repair.report)
    } else {
        (Vec::new(), doctor.check().map_err(|error| refused(&error))?)
    };
    report.findings.splice(0..0, check_identity(&arguments.data));
    match format {
        Format::Json => {
            let shown = json!({
                "healthy": report.is_healthy(),
                "done": done,
                "layers": report.layers,
                "checked": report.checked,
                "findings": report.findings,
            });
            output::line(shown.to_string())?;
        }
        Format::Text => tell(&done, &report)?,
    }
    Ok(if report.is_healthy() { output::DONE } else { output::REFUSED })
}

fn refused(error: &Error) -> Failure {
    Failure::Refused(error.to_string())
}

fn migrate(doctor: &Doctor, LayerMove::Log(to): LayerMove, format: Format) -> Result<u8, Failure> {
    let moved = doctor.migrate_log(to, &LogLayer::default()).map_err(|error| refused(&error))?;
    match format {
        Format::Json => output::line(json!(moved).to_string())?,
        Format::Text if moved.from == moved.to => output::line("the log is there already")?,
        Format::Text => {
            let (groups, entries) = (moved.groups, moved.entries);
            output::line(format!(
                "moved {groups} groups with {entries} entries; set storage.log.backend before the node starts"
            ))?;
        }
    }
    Ok(output::DONE)
}

/// Who the node is, which the storage does not know.
fn check_identity(dir: &std::path::Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = Identity::read(dir) {
        let (path, what) = (dir.join(crate::identity::FILE), format!("{error:#}"));
        findings.push(Finding::new(Severity::Damage, Part::Node, path, what, Remedy::ReplaceNode));
    }
    findings
}

fn tell(done: &[String], report: &Report) -> Result<(), Failure> {
    for done in done {
        output::line(format!("done: {done}"))?;
    }
    for finding in &report.findings {
        output::line(finding.to_string())?;
    }
    let checked = &report.checked;
    output::line(format!(
        "{}: read {} groups in the log, {} replicas with {} rows, {} checkpoints, {} snapshots",
        if report.is_healthy() { "healthy" } else { "not healthy" },
        checked.groups,
        checked.replicas,
        checked.rows,
        checked.checkpoints,
        checked.snapshots
    ))?;
    Ok(())
}
