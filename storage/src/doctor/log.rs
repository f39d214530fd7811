//! The log of a node, whichever backend wrote it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backends::Backends;
use super::{Doctor, Finding, Part, Remedy, Report, Severity};
use crate::composite::{LogBackend, LogLayer};
use crate::data::fjall::{journal, mirror};
use crate::disk::RealDisk;
use crate::log::append_log::{self, Examined};
use crate::log::{AppendLog, AppendOnlyLogStorage, FjallLog, GroupId, fjall_log};
use crate::{Error, Result};

/// Group of the system shard: a node can't run without it.
const SYSTEM: GroupId = GroupId(0);

/// Reads all of the log.
pub(super) fn check(doctor: &Doctor, backends: &Backends, report: &mut Report) -> Result<()> {
    let dir = doctor.log_dir();
    let Some(layers) = backends.layers else { return Ok(()) };
    match layers.log {
        LogBackend::AppendLog => check_segments(&dir, report),
        LogBackend::Fjall => check_fjall(&dir, &doctor.scratch.join("log"), report)?,
        LogBackend::MemoryLog => {}
    }
    let others = [LogBackend::AppendLog, LogBackend::Fjall];
    for other in others.into_iter().filter(|other| backends.listed && *other != layers.log) {
        for path in files(other, &dir)? {
            let what = "part of a log that was moved to another backend";
            report.findings.push(Finding::new(Severity::Leftover, Part::Log, path, what, Remedy::Remove));
        }
    }
    Ok(())
}

fn check_segments(dir: &Path, report: &mut Report) {
    let Examined { segments, groups, damaged, blemishes, tail, .. } =
        match append_log::examine(&RealDisk, dir) {
            Ok(examined) => examined,
            // Never opened.
            Err(Error::NotFound { .. }) => return,
            Err(error) => {
                report.findings.push(Finding::damage(Part::Log, dir, &error, Remedy::ReplaceNode));
                return;
            }
        };
    report.checked.segments = segments;
    report.checked.groups = groups;
    note_damaged(dir, damaged, report);
    for error in blemishes {
        let damage = Finding::damage(Part::Log, dir, &error, Remedy::None);
        report.findings.push(Finding { severity: Severity::Warning, ..damage });
    }
    if let Some((path, offset)) = tail {
        let what = "tail of the log, torn by a crash";
        let tail = Finding::new(Severity::Leftover, Part::Log, path, what, Remedy::CutTail);
        report.findings.push(Finding { offset: Some(offset), ..tail });
    }
}

fn note_damaged(dir: &Path, damaged: Vec<(GroupId, Error)>, report: &mut Report) {
    for (group, error) in damaged {
        let remedy = if group == SYSTEM { Remedy::ReplaceNode } else { Remedy::Refill };
        report.findings.push(Finding::damage(Part::Log, dir, &error, remedy).of(group, None));
    }
}

/// Looks where fjall does not, then lets it open a copy: it cuts its journal at what it does not like.
fn check_fjall(dir: &Path, copy: &Path, report: &mut Report) -> Result<()> {
    if files(LogBackend::Fjall, dir)?.is_empty() {
        return Ok(());
    }
    let damage = |error: &Error| Finding::damage(Part::Log, dir, error, Remedy::ReplaceNode);
    let database = dir.join(fjall_log::DATABASE);
    let looked = journal::inspect(&database).and_then(|_| journal::check_versions(&database));
    if let Err(error) = looked {
        report.findings.push(damage(&error));
        return Ok(());
    }
    match fjall_log::spoiled_marks(&RealDisk, dir) {
        Err(error) => report.findings.push(damage(&error)),
        Ok(spoiled) => report.findings.extend(spoiled.iter().map(|error| Finding {
            severity: Severity::Warning,
            ..Finding::damage(Part::Log, dir, error, Remedy::None)
        })),
    }
    mirror::remove(copy)?;
    mirror::copy(dir, copy)?;
    match FjallLog::open(Arc::new(RealDisk), copy, LogLayer::default().fjall) {
        Err(error) => report.findings.push(damage(&mirror::of_source(error, copy, dir))),
        Ok(log) => {
            let damaged = log.damaged();
            report.checked.groups = (log.groups().len() - damaged.len()) as u64;
            let told = damaged.into_iter().map(|(group, error)| (group, mirror::of_source(error, copy, dir)));
            note_damaged(dir, told.collect(), report);
        }
    }
    mirror::remove(copy)
}

/// The files of a backend in the directory of a log; none when it never wrote there.
pub(super) fn files(backend: LogBackend, dir: &Path) -> Result<Vec<PathBuf>> {
    match backend {
        LogBackend::AppendLog => append_log::files(&RealDisk, dir),
        LogBackend::Fjall => {
            Ok(fjall_log::FILES.iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect())
        }
        LogBackend::MemoryLog => Ok(Vec::new()),
    }
}

/// Opens a log to change it; its segments keep the size that they have.
pub(super) fn open(
    backend: LogBackend,
    dir: &Path,
    options: &LogLayer,
) -> Result<(Arc<dyn AppendOnlyLogStorage>, Option<bool>)> {
    match backend {
        LogBackend::AppendLog => {
            let mut options = options.options.clone();
            if let Ok(Examined { segment_bytes: Some(bytes), .. }) = append_log::examine(&RealDisk, dir) {
                options.segment_bytes = bytes;
            }
            let log = AppendLog::open(Arc::new(RealDisk), dir, options)?;
            let closed = log.was_closed_cleanly();
            Ok((log, closed))
        }
        LogBackend::Fjall => {
            let log = FjallLog::open(Arc::new(RealDisk), dir, options.fjall.clone())?;
            let closed = log.was_closed_cleanly();
            Ok((log, closed))
        }
        LogBackend::MemoryLog => {
            Err(Error::Refused { what: "log", reason: "memory_log keeps nothing on disk".to_owned() })
        }
    }
}
