//! Members as processes of their own, which die by SIGKILL while they write.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Where a member process finds what it is: data folder, its number, and all ports.
const WHO: &str = "CORACLE_TEST_MEMBER";

/// The body of a member process, and nothing in a run of the tests themselves: it does what lines on its standard input say, and answers with lines that begin with `@`.
#[test]
fn member_process() {
    let Ok(who) = std::env::var(WHO) else { return };
    let parts: Vec<&str> = who.split(',').collect();
    let at: usize = parts[1].parse().expect("a number");
    let ports: Vec<u16> = parts[2..].iter().map(|port| port.parse().expect("a port")).collect();
    let name = |at: usize| format!("m{at}");
    let data = Path::new(parts[0]).join(name(at));
    let config = NodeConfig {
        name: name(at),
        wal: data.join("wal"),
        data,
        cluster: ports.iter().enumerate().map(|(at, port)| (name(at), vec![url(*port)])).collect(),
        token: "kill".to_owned(),
        joins: false,
        peer_urls: vec![url(ports[at])],
        client_urls: vec![name(at)],
        heartbeat_millis: 100,
        election_millis: 300,
        snapshot_entries: 100,
        alone: false,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async move {
        let (tasks, shared) = (Tasks::new(), Shared::new(Machine::new()));
        let listener = TcpListener::bind(("127.0.0.1", ports[at])).await.expect("binds");
        let node = open(config, None, None, shared.clone(), &tasks).await.expect("opens");
        serve_peers(&node, listener, None, &tasks);
        println!("@ready");
        let (lines, mut asked) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        while let Some(line) = asked.recv().await {
            if let Some(key) = line.strip_prefix("put ") {
                let put = PutRequest {
                    key: key.to_owned().into(),
                    value: key.repeat(50).into(),
                    ..Default::default()
                };
                let node = node.clone();
                let key = key.to_owned();
                tasks.run("put", async move {
                    let done = node.commit(Op::Put(put)).await.is_ok();
                    println!("@{} {key}", if done { "done" } else { "failed" });
                });
            } else {
                node.read_barrier().await.expect("reads");
                let machine = shared.machine();
                println!("@state {} {}", machine.hash_kv(0), machine.keys());
            }
        }
    });
}

struct Process {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

fn spawn(folder: &Path, at: usize, ports: &[u16]) -> Process {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "raft::tests::kill::member_process", "--nocapture"])
        .env(WHO, format!("{},{at},{}", folder.display(), ports.join(",")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let (sender, answers) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // The test harness writes before the first answer, on the same line.
            if let Some((_, answer)) = line.split_once('@') {
                let _ = sender.send(answer.to_owned());
            }
        }
    });
    let process = Process { child, input, answers };
    assert_eq!(process.answers.recv_timeout(Duration::from_secs(30)).as_deref(), Ok("ready"));
    process
}

impl Process {
    fn ask(&mut self, line: &str) {
        // A member that is being killed takes no more lines.
        let _ = writeln!(self.input, "{line}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts these members at the same time: none is up before a majority is.
fn spawn_all(folder: &Path, members: &[usize], ports: &[u16]) -> Vec<Process> {
    std::thread::scope(|scope| {
        let starting: Vec<_> =
            members.iter().map(|&at| scope.spawn(move || spawn(folder, at, ports))).collect();
        starting.into_iter().map(|one| one.join().expect("starts")).collect()
    })
}

#[test]
fn nothing_acknowledged_is_lost_however_often_members_are_killed() {
    let folder = tempfile::tempdir().expect("folder");
    let ports: Vec<u16> = (0..3).map(|_| NEXT_PORT.fetch_add(1, Ordering::Relaxed)).collect();
    let mut members = spawn_all(folder.path(), &[0, 1, 2], &ports);
    let mut acknowledged = BTreeMap::new();
    for round in 0..9 {
        for (at, member) in members.iter_mut().enumerate() {
            for number in 0..60 {
                member.ask(&format!("put r{round}-m{at}-{number}"));
            }
        }
        // In the midst of it, at a moment that differs from round to round.
        std::thread::sleep(Duration::from_millis(20 + 37 * round));
        let victim = round as usize % 3;
        let mut all = vec![victim];
        // A power failure hits everybody at once.
        if round % 4 == 3 {
            all = vec![0, 1, 2];
        }
        for at in &all {
            members[*at].child.kill().expect("kills");
            members[*at].child.wait().expect("dies");
        }
        for (at, member) in members.iter_mut().enumerate() {
            let limit = if all.contains(&at) { Duration::from_millis(50) } else { Duration::from_secs(15) };
            let mut open = 60;
            while open > 0
                && let Ok(answer) = member.answers.recv_timeout(limit)
            {
                open -= 1;
                if let Some(key) = answer.strip_prefix("done ") {
                    acknowledged.insert(key.to_owned(), at);
                }
            }
        }
        let back = spawn_all(folder.path(), &all, &ports);
        for (at, process) in all.iter().zip(back) {
            members[*at] = process;
        }
    }
    assert!(acknowledged.len() > 100, "{} acknowledged", acknowledged.len());
    let mut states = Vec::new();
    for member in &mut members {
        member.ask("state");
        states.push(member.answers.recv_timeout(Duration::from_secs(30)).expect("answers"));
    }
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    drop(members);
    // What the members say they have is what their disks say.
    let (machine, _) = read_back(folder.path());
    for key in acknowledged.keys() {
        let request = RangeRequest { key: key.clone().into(), count_only: true, ..Default::default() };
        assert_eq!(machine.range(&request).expect("reads").count, 1, "{key} was acknowledged and is gone");
    }
    println!("{} acknowledged, none lost", acknowledged.len());
}

/// What the first member's snapshot and log make when they are read without any other member.
fn read_back(folder: &Path) -> (Machine, u64) {
    let data = folder.join("m0");
    let newest = Snapshots::open(&data.join("snapshots")).expect("opens").newest().expect("reads");
    let (mut machine, mut applied) = match newest {
        Some((meta, file)) => (file.restore().expect("restores"), meta.last_log_id.map_or(0, |id| id.index)),
        None => (Machine::new(), 0),
    };
    let disk = Arc::new(Folder::open(&data.join("wal")).expect("opens"));
    let state = Wal::open(disk, Options::default(), Ignore).expect("opens").whole().expect("reads");
    for entry in state.range(applied + 1, u64::MAX) {
        if entry.kind == 1 {
            let command = crate::command::Command::decode(entry.payload.clone()).expect("decodes");
            // Refusals are outcomes, too.
            let _ = machine.apply(&command);
        }
        applied = entry.id.index;
    }
    (machine, applied)
}
