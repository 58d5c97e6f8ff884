//! Scenarios of exec and attach.

use super::world::{LIMIT, World};
use coracle_daemon::clock;
use kubelet::runtime::{ExecSpec, Runtime, RuntimeError, Streams};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

fn spec(command: &[&str]) -> ExecSpec {
    ExecSpec { command: command.iter().map(|s| (*s).to_owned()).collect(), ..ExecSpec::default() }
}

async fn text(stream: impl AsyncRead + Unpin) -> String {
    let (mut stream, mut bytes) = (stream, Vec::new());
    clock::timeout(LIMIT, stream.read_to_end(&mut bytes)).await.expect("the stream ends").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads until the text is there.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut got = String::new();
    let reading = async {
        while !got.contains(wanted) {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "ended at {got:?}");
            got.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    clock::timeout(LIMIT, reading).await.expect("the text comes");
    got
}

pub async fn commands_run_beside_a_container(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("exec", 2)).await.unwrap();
    let mut container = world.script("exec", "main", "exec sleep 1000");
    container.env = vec![("A".to_owned(), "b".to_owned())];
    let id = world.runtime.start_container(&container).await.unwrap();

    let mut exec =
        world.runtime.exec(&id, &spec(&["sh", "-c", "echo $A; echo err >&2; exit 9"])).await.unwrap();
    let Streams { stdin, stdout, stderr } = exec.streams().unwrap();
    assert!(stdin.is_none() && exec.streams().is_none());
    assert_eq!((text(stdout).await, text(stderr.unwrap()).await), ("b\n".to_owned(), "err\n".to_owned()));
    assert_eq!(exec.wait().await.unwrap(), 9);
    drop(exec);

    let mut exec = world.runtime.exec(&id, &ExecSpec { stdin: true, ..spec(&["wc", "-c"]) }).await.unwrap();
    let Streams { stdin, stdout, .. } = exec.streams().unwrap();
    let mut stdin = stdin.unwrap();
    let writing = async {
        stdin.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (output, ()) = tokio::join!(text(stdout), writing);
    assert_eq!(output.trim(), "1000000");
    assert_eq!(exec.wait().await.unwrap(), 0);
    drop(exec);

    let mut exec = world.runtime.exec(&id, &spec(&["seq", "200000"])).await.unwrap();
    let output = text(exec.streams().unwrap().stdout).await;
    assert_eq!((output.lines().count(), output.ends_with("200000\n")), (200_000, true));
    drop(exec);

    let terminal =
        ExecSpec { tty: true, stdin: true, ..spec(&["sh", "-c", "read x; stty size; echo got $x; exit 2"]) };
    let mut exec = world.runtime.exec(&id, &terminal).await.unwrap();
    exec.resize(100, 30).await.unwrap();
    let Streams { stdin, stdout, stderr } = exec.streams().unwrap();
    assert!(stderr.is_none());
    stdin.unwrap().write_all(b"hi\n").await.unwrap();
    assert_eq!(text(stdout).await, "hi\r\n30 100\r\ngot hi\r\n");
    assert_eq!(exec.wait().await.unwrap(), 2);
    drop(exec);

    match world.runtime.exec(&id, &spec(&["nosuch"])).await {
        Err(RuntimeError::Start(text)) => {
            assert!(text.contains("exec: \"nosuch\": executable file not found in $PATH"), "{text}");
        }
        other => panic!("{:?}", other.err()),
    }
    let exec = world.runtime.exec(&id, &spec(&["sleep", "54321"])).await.unwrap();
    drop(exec);
    super::world::eventually(|| (!super::world::run("ps", &["ax"]).contains("sleep 54321")).then_some(()))
        .await;
    let folder = format!("/run/coracle/containers/{id}");
    super::world::eventually(|| {
        let left = std::fs::read_dir(&folder).unwrap();
        (!left.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("exec-"))).then_some(())
    })
    .await;
    world.runtime.remove_sandbox("exec").await.unwrap();
    assert!(matches!(world.runtime.exec(&id, &spec(&["ls"])).await, Err(RuntimeError::NotFound { .. })));
}

/// A shell on a terminal does what it is told through attaching.
pub async fn shell_answers(world: &World, id: &str) {
    let mut attached = world.runtime.attach(id).await.unwrap();
    let Streams { stdin, mut stdout, stderr } = attached.streams().unwrap();
    assert!(stderr.is_none());
    attached.resize(91, 17).await.unwrap();
    let mut stdin = stdin.unwrap();
    stdin.write_all(b"stty size; echo $((6*7))\n").await.unwrap();
    read_until(&mut stdout, "17 91\r\n42\r\n").await;
}

pub async fn a_terminal_can_be_attached_to(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("tty", 2)).await.unwrap();
    let mut container = world.container("tty", "main", &["sh"]);
    (container.tty, container.stdin) = (true, true);
    let id = world.runtime.start_container(&container).await.unwrap();
    shell_answers(world, &id).await;
    // Whoever leaves takes nothing along: the next one finds the shell as it was.
    shell_answers(world, &id).await;
    let mut attached = world.runtime.attach(&id).await.unwrap();
    let Streams { stdin, stdout, .. } = attached.streams().unwrap();
    stdin.unwrap().write_all(b"exit 6\n").await.unwrap();
    text(stdout).await;
    assert_eq!(attached.wait().await.unwrap(), 6);
    assert_eq!(world.end("tty", "main").await, (6, false));
    assert!(world.entries("tty", "main").iter().any(|entry| entry.contains("42")));
    world.runtime.remove_sandbox("tty").await.unwrap();
}

pub async fn input_ends_with_the_first_who_gives_it(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("once", 2)).await.unwrap();
    let mut container = world.container("once", "main", &["cat"]);
    (container.stdin, container.stdin_once) = (true, true);
    let id = world.runtime.start_container(&container).await.unwrap();
    // Looking without typing leaves the input open.
    let mut looking = world.runtime.attach(&id).await.unwrap();
    let mut seen = looking.streams().unwrap();
    drop(seen.stdin.take());
    let mut attached = world.runtime.attach(&id).await.unwrap();
    let Streams { stdin, stdout, .. } = attached.streams().unwrap();
    let mut stdin = stdin.unwrap();
    stdin.write_all(b"all\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(text(stdout).await, "all\n");
    assert_eq!(text(seen.stdout).await, "all\n");
    assert_eq!(attached.wait().await.unwrap(), 0);
    assert_eq!(world.end("once", "main").await, (0, false));
    world.runtime.remove_sandbox("once").await.unwrap();
}

pub async fn output_can_be_followed_by_attaching(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("follow", 2)).await.unwrap();
    let container = world.script(
        "follow",
        "main",
        "trap 'echo out; echo err >&2; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    );
    let id = world.runtime.start_container(&container).await.unwrap();
    world.logged("follow", "main", |entries| !entries.is_empty()).await;
    let mut attached = world.runtime.attach(&id).await.unwrap();
    let Streams { stdin, stdout, stderr } = attached.streams().unwrap();
    assert!(stdin.is_none());
    world.runtime.stop_container(&id, LIMIT).await.unwrap();
    assert_eq!((text(stdout).await, text(stderr.unwrap()).await), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(attached.wait().await.unwrap(), 0);
    assert!(world.runtime.attach(&id).await.is_err());
    world.runtime.remove_sandbox("follow").await.unwrap();
}
