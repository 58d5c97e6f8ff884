//! Debian packages in, a file tree out: the named packages whole (without documentation), and of everything they depend
//! on only the shared libraries that some program needs.

use super::recipe::Recipe;
use anyhow::{Context, Result};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Largest data of one package, unpacked, in bytes.
const PACKAGE_MAX: u64 = 2 << 30;

static UPDATING: Mutex<()> = Mutex::new(());

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A folder with its mode.
    Folder(u32),
    /// A file: mode and content.
    File(u32, Vec<u8>),
    /// A symbolic link to a target.
    Link(String),
}

/// Paths without a leading slash, in order.
pub type Tree = BTreeMap<String, Entry>;

const DROPPED: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/info",
    "usr/share/bug",
    "lib/systemd",
    "usr/share/bash-completion",
    "etc/init.d",
];

/// Builds the tree of a recipe. Blocks; uses apt-get to download.
///
/// # Errors
/// A package does not exist, cannot be downloaded or is damaged.
pub fn tree(recipe: &Recipe) -> Result<Tree> {
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut tree = Tree::new();
    let mut libraries = Tree::new();
    for package in download(&recipe.packages, work.path())? {
        let named = package
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split('_').next())
            .is_some_and(|name| recipe.packages.iter().any(|wanted| wanted == name));
        let content = unpack(&package).with_context(|| format!("{} is damaged", package.display()))?;
        if named { tree.extend(content) } else { libraries.extend(content) }
    }
    tree.retain(|path, _| !DROPPED.iter().any(|dropped| path.starts_with(dropped)));
    merge_usr(&mut tree);
    merge_usr(&mut libraries);
    add_needed(&mut tree, &libraries);
    applets(&mut tree);
    for (path, mode) in &recipe.folders {
        tree.insert(path.clone(), Entry::Folder(*mode));
    }
    for (path, mode, content) in &recipe.files {
        tree.insert(path.clone(), Entry::File(*mode, content.clone().into_bytes()));
    }
    for (path, target) in &recipe.links {
        tree.insert(path.clone(), Entry::Link(target.clone()));
    }
    add_parents(&mut tree);
    Ok(tree)
}

/// Packages and all they depend on, as if nothing were installed.
fn download(packages: &[String], work: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(work.join("archives/partial")).context("cannot make a temporary folder")?;
    fs::write(work.join("status"), "").context("cannot write a temporary file")?;
    let mut output = apt_get(packages, work)?;
    if !output.status.success() && nix::unistd::geteuid().is_root() {
        // A new machine has no package lists yet, or old ones. Images are built side by side, and apt locks its lists.
        let _one = UPDATING.lock().unwrap_or_else(PoisonError::into_inner);
        let updated =
            Command::new("apt-get").args(["-qq", "update"]).output().context("cannot run apt-get")?;
        if updated.status.success() {
            output = apt_get(packages, work)?;
        }
    }
    anyhow::ensure!(
        output.status.success(),
        "cannot download {}: {} (if apt knows no such package, run `apt-get update`)",
        packages.join(", "),
        String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("apt-get failed")
    );
    let mut files: Vec<PathBuf> = fs::read_dir(work.join("archives"))
        .context("cannot list the packages")?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .collect();
    files.sort();
    Ok(files)
}

fn apt_get(packages: &[String], work: &Path) -> Result<Output> {
    let option = |key: &str, value: &str| format!("-o{key}={value}");
    Command::new("apt-get")
        .arg(option("Dir::State::status", &work.join("status").to_string_lossy()))
        .arg(option("Dir::Cache::archives", &work.join("archives").to_string_lossy()))
        .args([
            "-oDebug::NoLocking=1",
            "-oAPT::Install-Recommends=false",
            "-oAPT::Sandbox::User=root",
            "-qq",
            "--download-only",
            "--yes",
            "install",
        ])
        .args(packages)
        .output()
        .context("cannot run apt-get: images are built from Debian packages")
}

/// A .deb is an ar archive with the files in data.tar, compressed (deb(5)).
fn unpack(package: &Path) -> Result<Tree> {
    let mut archive = ar::Archive::new(fs::File::open(package).context("cannot open it")?);
    while let Some(member) = archive.next_entry() {
        let member = member.context("cannot read it")?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        match name.trim_end_matches('/') {
            "data.tar.xz" => return files(xz2::read::XzDecoder::new(member)),
            "data.tar.zst" => return files(zstd::Decoder::new(member).context("cannot decompress it")?),
            "data.tar.gz" => return files(flate2::read::GzDecoder::new(member)),
            "data.tar" => return files(member),
            _ => {}
        }
    }
    anyhow::bail!("it has no data.tar")
}

fn files(data: impl Read) -> Result<Tree> {
    let mut tree = Tree::new();
    for entry in tar::Archive::new(data.take(PACKAGE_MAX)).entries().context("cannot read data.tar")? {
        let mut entry = entry.context("cannot read data.tar")?;
        let path = plain(&entry.path().context("a path is no text")?);
        let mode = entry.header().mode().unwrap_or(0o644);
        let kind = entry.header().entry_type();
        let target = entry.link_name().ok().flatten().map(|target| target.to_string_lossy().into_owned());
        let found = match (kind, target) {
            (tar::EntryType::Directory, _) => Entry::Folder(mode),
            (tar::EntryType::Symlink, Some(target)) => Entry::Link(target),
            (tar::EntryType::Link, Some(target)) => match tree.get(&plain(Path::new(&target))) {
                Some(original) => original.clone(),
                None => continue,
            },
            (tar::EntryType::Regular, _) => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).with_context(|| format!("cannot read {path}"))?;
                Entry::File(mode, content)
            }
            _ => continue,
        };
        if !path.is_empty() {
            tree.insert(path, found);
        }
    }
    Ok(tree)
}

/// `./usr/bin/x` and `/usr/bin/x` → `usr/bin/x`; a path that climbs out loses its `..`.
fn plain(path: &Path) -> String {
    path.components()
        .filter_map(|part| if let std::path::Component::Normal(name) = part { name.to_str() } else { None })
        .collect::<Vec<_>>()
        .join("/")
}

/// `/bin`, `/sbin`, `/lib` and `/lib64` are links into `/usr`, as on a Debian machine.
fn merge_usr(tree: &mut Tree) {
    for top in ["bin", "sbin", "lib", "lib64"] {
        let prefix = format!("{top}/");
        let moved: Vec<String> = tree.keys().filter(|path| path.starts_with(&prefix)).cloned().collect();
        for path in moved {
            if let Some(entry) = tree.remove(&path) {
                tree.insert(format!("usr/{path}"), entry);
            }
        }
        tree.insert(format!("usr/{top}"), Entry::Folder(0o755));
        tree.insert(top.to_owned(), Entry::Link(format!("usr/{top}")));
    }
}

/// Adds the libraries that programs need, and those that these need, until nothing is missing.
fn add_needed(tree: &mut Tree, libraries: &Tree) {
    let wanted = tree.values().flat_map(needs).collect();
    add_named(tree, libraries, wanted);
}

fn add_named(tree: &mut Tree, libraries: &Tree, mut wanted: Vec<String>) {
    // A name may be in several folders: the loader is a file in one and a link to it in another.
    let mut by_name: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for path in libraries.keys().filter(|path| path.starts_with("usr/lib")) {
        by_name.entry(path.rsplit('/').next().unwrap_or(path)).or_default().push(path);
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        for path in by_name.get(name.as_str()).into_iter().flatten() {
            let entry = &libraries[*path];
            if let Entry::Link(target) = entry {
                wanted.push(target.rsplit('/').next().unwrap_or(target).to_owned());
            }
            wanted.extend(needs(entry));
            tree.insert((*path).clone(), entry.clone());
        }
    }
}

/// File names of the libraries and the loader that an ELF file asks for; nothing for other files.
fn needs(entry: &Entry) -> Vec<String> {
    let Entry::File(_, content) = entry else { return Vec::new() };
    if !content.starts_with(b"\x7fELF") {
        return Vec::new();
    }
    elf_needs(content).unwrap_or_default()
}

fn elf_needs(content: &[u8]) -> object::Result<Vec<String>> {
    let header = object::elf::FileHeader64::<object::Endianness>::parse(content)?;
    let endian = header.endian()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut names = Vec::new();
    for segment in header.program_headers(endian, content)? {
        if let Some(loader) = segment.interpreter(endian, content)? {
            names.push(text(loader).rsplit('/').next().unwrap_or_default().to_owned());
        }
    }
    let sections = header.sections(endian, content)?;
    if let Some((dynamic, strings)) = sections.dynamic(endian, content)? {
        let strings = sections.strings(endian, content, strings)?;
        for entry in dynamic {
            if entry.tag32(endian) == i32::try_from(object::elf::DT_NEEDED).ok() {
                names.push(text(entry.string(endian, strings)?));
            }
        }
    }
    Ok(names)
}

/// A link for each applet of busybox whose place is free.
fn applets(tree: &mut Tree) {
    if !tree.contains_key("usr/bin/busybox") {
        return;
    }
    for applet in APPLETS.split_whitespace() {
        if ["usr/bin", "usr/sbin", "usr/local/bin"]
            .iter()
            .all(|dir| !tree.contains_key(&format!("{dir}/{applet}")))
        {
            tree.insert(format!("usr/bin/{applet}"), Entry::Link("/usr/bin/busybox".to_owned()));
        }
    }
}

const APPLETS: &str = "[ [[ adjtimex ar arch arping ash awk basename bc blockdev brctl bunzip2 bzcat bzip2 cal cat chgrp chmod chown chroot chvt clear cmp cp cpio cttyhack cut date dc dd deallocvt depmod devmem df diff dirname dmesg dnsdomainname dos2unix du dumpkmap dumpleases echo egrep env expand expr factor fallocate false fatattr fdisk fgrep find fold free freeramdisk fsfreeze fstrim ftpget ftpput getopt getty grep groups gunzip gzip halt head hexdump hostid hostname httpd hwclock i2cdetect id ifconfig ifdown ifup init insmod ionice ip ipcalc kill killall klogd last less link linux32 linux64 ln loadfont loadkmap logger login logname logread losetup ls lsmod lsscsi lzcat lzma lzop md5sum mdev microcom mkdir mkdosfs mke2fs mkfifo mknod mkpasswd mkswap mktemp modinfo modprobe more mount mt mv nameif nc netstat nl nologin nproc nsenter nslookup nuke od openvt partprobe paste patch pidof ping ping6 pivot_root poweroff printf ps pwd rdate readlink realpath reboot renice reset resume rev rm rmdir rmmod route rpm rpm2cpio run-init run-parts sed seq setkeycodes setpriv setsid sh sha1sum sha256sum sha512sum shred shuf sleep sort ssl_client start-stop-daemon stat strings stty svc svok swapoff swapon switch_root sync sysctl syslogd tac tail tar taskset tee telnet test tftp time timeout top touch tr traceroute traceroute6 true truncate tty tunctl ubirename udhcpc udhcpd uevent umount uname uncompress unexpand uniq unix2dos unlink unlzma unshare unxz unzip uptime usleep uudecode uuencode vconfig vi w watch watchdog wc wget which who whoami xargs xxd xz xzcat yes zcat";

fn add_parents(tree: &mut Tree) {
    let paths: Vec<String> = tree.keys().cloned().collect();
    for path in paths {
        let mut parent = path.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            tree.entry(above.to_owned()).or_insert(Entry::Folder(0o755));
            parent = above;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_above_a_file_exist_and_bin_is_a_link() {
        let mut tree = Tree::from([("bin/x".to_owned(), Entry::File(0o755, b"x".to_vec()))]);
        merge_usr(&mut tree);
        add_parents(&mut tree);
        assert_eq!(tree["bin"], Entry::Link("usr/bin".to_owned()));
        assert!(matches!(tree["usr/bin/x"], Entry::File(..)));
        assert!(matches!(tree["usr"], Entry::Folder(_)));
    }

    #[test]
    fn a_library_comes_with_all_links_of_its_name() {
        let link = Entry::Link("/lib/x86_64-linux-gnu/ld.so".to_owned());
        let libraries = Tree::from([
            ("usr/lib/x86_64-linux-gnu/ld.so".to_owned(), Entry::File(0o755, b"loader".to_vec())),
            ("usr/lib64/ld.so".to_owned(), link),
            ("usr/lib/libx.so.1".to_owned(), Entry::Link("ld.so".to_owned())),
        ]);
        let mut tree = Tree::new();
        add_named(&mut tree, &libraries, vec!["libx.so.1".to_owned()]);
        assert_eq!(tree.keys().collect::<Vec<_>>(), libraries.keys().collect::<Vec<_>>());
    }

    #[test]
    fn paths_cannot_climb_out() {
        assert_eq!(plain(Path::new("./../../etc/x")), "etc/x");
    }
}
