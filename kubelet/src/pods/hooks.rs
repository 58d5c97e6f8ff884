//! What containers do at their beginning and end: postStart and preStop hooks, and last words.

use super::{Entry, Pods};
use crate::probes::check::{Check, Place};
use crate::step::{Stop, containers_of, later};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of last words that are kept, and of a log's end in their place.
const WORDS_MAX: u64 = 4096;
const LOG_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

impl Pods {
    fn place(&self, container: &Container, id: &str, ip: IpAddr) -> Place {
        Place { runtime: self.runtime.clone(), id: id.to_owned(), ip, container: container.clone() }
    }

    /// Runs the postStart hook beside; the container is not started in the eyes of others before it is over.
    pub(super) fn post_start(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        container: &Container,
        id: String,
        ip: IpAddr,
    ) {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(check) = hook.and_then(Check::of_hook) else { return };
        entry.memory.lock().hooks.insert(id.clone());
        let (this, entry, pod) = (self.clone(), entry.clone(), pod.clone());
        let place = self.place(container, &id, ip);
        entry.scope.clone().spawn(format!("postStart of {id}"), async move {
            let done = check.run(&place).await;
            entry.memory.lock().hooks.remove(&id);
            if let Err(why) = done {
                let name = place.container.name.clone();
                this.warn(&pod, &name, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
                let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
                let grace = Duration::from_secs(u64::try_from(grace.unwrap_or(30)).unwrap_or(0));
                let deadline = later(clock::now(), grace);
                let why = Stop::Restart(format!("FailedPostStartHook: container {name}"));
                if let Some(node) = super::node_of(&pod).and_then(|node| this.nodes.get(node)) {
                    this.stop(&entry, &pod, node, (name, id), deadline, why).await;
                }
            }
            this.queue.add(entry.key.clone());
        });
    }

    /// Runs the preStop hook, until the deadline at most.
    pub(super) async fn pre_stop(&self, pod: &Pod, name: &str, id: &str, ip: IpAddr, deadline: Timestamp) {
        let container = pod.spec.as_ref().and_then(|spec| containers_of(spec).find(|one| one.name == name));
        let Some(container) = container else { return };
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let Some(check) = hook.and_then(Check::of_hook) else { return };
        let left = Duration::try_from(deadline.duration_since(clock::now())).unwrap_or(Duration::ZERO);
        match clock::timeout(left, check.run(&self.place(container, id, ip))).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => self.warn(pod, name, "FailedPreStopHook", format!("PreStopHook failed: {why}")),
            Err(_) => self.warn(pod, name, "FailedPreStopHook", "PreStopHook failed: grace period is over"),
        }
    }
}

/// What a container left behind; the end of its log where it left nothing and `log_counts`.
pub(super) fn last_words(file: &Path, log: &Path, log_counts: bool) -> String {
    // A container that left no file left no words.
    let words = beginning(file).unwrap_or_default();
    if !words.is_empty() || !log_counts {
        return words;
    }
    end_of_log(log).unwrap_or_default()
}

fn beginning(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(WORDS_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of an entry, and whether a line ends with them: `time stream F|P words`.
fn entry(line: &str) -> Option<(&str, bool)> {
    let mut parts = line.splitn(4, ' ').skip(2);
    let tag = parts.next()?;
    parts.next().map(|words| (words, tag == "F"))
}

/// The text of the last lines of a log in CRI's format.
fn end_of_log(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let size = file.metadata()?.len();
    // Each line carries about 45 bytes of time and stream.
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_MAX * 8)))?;
    let mut bytes = Vec::new();
    file.take(LOG_MAX * 8).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut entries: Vec<_> = text.lines().filter_map(entry).collect();
    let mut out = String::new();
    for (words, ends_line) in entries.split_off(entries.len().saturating_sub(LOG_LINES_MAX)) {
        out.push_str(words);
        out.push_str(if ends_line { "\n" } else { "" });
    }
    let most = usize::try_from(LOG_MAX).unwrap_or(usize::MAX);
    let mut from = out.len().saturating_sub(most);
    while !out.is_char_boundary(from) {
        from += 1;
    }
    Ok(out.split_off(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_come_from_the_file_or_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("words"), folder.path().join("log"));
        assert_eq!(last_words(&file, &log, true), "");
        std::fs::write(&log, "T stdout F one\nT stderr F two words\n").unwrap();
        assert_eq!(last_words(&file, &log, true), "one\ntwo words\n");
        assert_eq!(last_words(&file, &log, false), "");
        std::fs::write(&log, "T stdout F one\nT stdout P DO\nT stdout P NE\n").unwrap();
        assert_eq!(last_words(&file, &log, true), "one\nDONE", "a line that did not end");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(last_words(&file, &log, true).len(), 4096);
    }
}
