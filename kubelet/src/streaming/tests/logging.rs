//! Logs: what is there, and what comes.

use super::{get, send};
use crate::streaming::testing::{Kubelet, kubelet, pod, soon};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

fn log(kubelet: &Kubelet, container: &str, attempt: u32) -> PathBuf {
    let folder = kubelet.logs.path().join("ns_p_u").join(container);
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{attempt}.log"))
}

fn append(path: &PathBuf) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn line(file: &mut File, text: &str) {
    writeln!(file, "2026-01-01T00:00:01Z stdout F {text}").unwrap();
}

/// The next text; empty at the end.
async fn next(body: &mut Incoming) -> String {
    match soon("more of the log", body.frame()).await {
        Some(frame) => String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap(),
        None => String::new(),
    }
}

#[tokio::test]
async fn a_log_is_told_as_far_as_it_goes() {
    let kubelet = kubelet(false).await;
    let mut old = append(&log(&kubelet, "c", 0));
    line(&mut old, "before");
    let mut now = append(&log(&kubelet, "c", 1));
    now.write_all(b"2026-01-01T00:00:01Z stdout P par\n2026-01-01T00:00:01Z stdout F tial\n").unwrap();
    now.write_all(b"2026-01-01T00:00:02.25Z stderr F oops\n2026-01-01T00:00:03Z stdout F unfini").unwrap();
    let rows = [
        ("", "partial\noops\n"),
        ("?tailLines=1", "oops\n"),
        ("?tailLines=0", ""),
        ("?previous=true", "before\n"),
        ("?stream=Stdout&limitBytes=3", "par"),
        ("?sinceTime=2026-01-01T00:00:02Z&timestamps=true", "2026-01-01T00:00:02.250000000Z oops\n"),
        ("?sinceSeconds=1", ""),
    ];
    for (query, text) in rows {
        let told = get(&kubelet, &format!("/containerLogs/ns/p/c{query}"), &[]).await;
        assert_eq!(told, (200, text.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_missing_log_says_why() {
    let kubelet = kubelet(false).await;
    line(&mut append(&log(&kubelet, "c", 0)), "once");
    let rows = [
        ("none/c", 404, "pod \"none\" does not exist"),
        ("p/none", 400, "container none is not valid for pod p"),
        ("p/new", 400, "container \"new\" in pod \"p\" is waiting to start: ContainerCreating"),
        ("p/c?previous=true", 400, "previous terminated container \"c\" in pod \"p\" not found"),
        ("p/c?tailLines=many", 400, "invalid tailLines: \"many\""),
    ];
    for (path, code, text) in rows {
        let told = get(&kubelet, &format!("/containerLogs/ns/{path}"), &[]).await;
        assert_eq!(told, (code, text.to_owned()));
    }
}

#[tokio::test]
async fn a_follower_sees_lines_as_they_come_across_a_rotation_until_the_writer_is_done() {
    let kubelet = kubelet(false).await;
    let path = log(&kubelet, "c", 1);
    let mut writer = append(&path);
    line(&mut writer, "one");
    line(&mut writer, "two");
    let mut body = send(&kubelet, "/containerLogs/ns/p/c?follow=true&tailLines=1", &[]).await.into_body();
    assert_eq!(next(&mut body).await, "two\n");
    line(&mut writer, "three");
    assert_eq!(next(&mut body).await, "three\n");
    writer.write_all(b"2026-01-01T00:00:01Z stdout F fo").unwrap();
    writer.write_all(b"ur\n").unwrap();
    assert_eq!(next(&mut body).await, "four\n");
    // As the logger does it: the last line, put aside, a new file; then the old one is closed.
    line(&mut writer, "five");
    fs::rename(&path, path.with_extension("log.1")).unwrap();
    let mut fresh = append(&path);
    drop(writer);
    line(&mut fresh, "six");
    let mut told = next(&mut body).await;
    while !told.ends_with("six\n") {
        told += &next(&mut body).await;
    }
    assert_eq!(told, "five\nsix\n");
    line(&mut fresh, "last");
    drop(fresh);
    assert_eq!((next(&mut body).await.as_str(), next(&mut body).await.as_str()), ("last\n", ""));
}

#[tokio::test]
async fn a_follower_leaves_when_the_container_has_ended_though_nobody_closed_its_log() {
    let kubelet = kubelet(false).await;
    let mut writer = append(&log(&kubelet, "c", 1));
    line(&mut writer, "one");
    let mut body = send(&kubelet, "/containerLogs/ns/p/c?follow=true", &[]).await.into_body();
    assert_eq!(next(&mut body).await, "one\n");
    *kubelet.runtime.alive.lock() = false;
    kubelet.pods.upsert(pod("2"));
    line(&mut writer, "late");
    assert_eq!((next(&mut body).await.as_str(), next(&mut body).await.as_str()), ("late\n", ""));
    // A log that was complete before anyone asked.
    let told = get(&kubelet, "/containerLogs/ns/p/c?follow=true", &[]).await;
    assert_eq!(told, (200, "one\nlate\n".to_owned()));
}
