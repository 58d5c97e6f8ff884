//! How images are made of packages: a table for the ones everybody uses, a plain rule for the rest.

use sha2::{Digest, Sha256};

/// Changes when the builder changes what it makes of the same recipe.
const BUILDER: &str = "2";

/// An image to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Short name.
    pub name: String,
    /// Name and tag, as in a pod's `image`.
    pub tag: String,
    /// Debian packages that are taken whole; of their dependencies only needed libraries are.
    pub packages: Vec<String>,
    /// Files on top: path, mode, content.
    pub files: Vec<(String, u32, String)>,
    /// Symbolic links on top: path, target.
    pub links: Vec<(String, String)>,
    /// Empty folders, world-writable with the sticky bit when mode says so.
    pub folders: Vec<(String, u32)>,
    /// Command.
    pub cmd: Vec<String>,
    /// Ports that it listens on.
    pub ports: Vec<u16>,
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnginx:x:101:101:nginx:/nonexistent:/bin/false\nredis:x:999:999:redis:/data:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\nnginx:x:101:\nredis:x:999:\n";

const NGINX_CONF: &str = "user nginx;\nworker_processes auto;\nerror_log /dev/stderr notice;\npid /run/nginx.pid;\nevents { worker_connections 1024; }\nhttp {\n  include /etc/nginx/mime.types;\n  default_type application/octet-stream;\n  access_log /dev/stdout;\n  sendfile on;\n  keepalive_timeout 65;\n  include /etc/nginx/conf.d/*.conf;\n}\n";
const NGINX_SITE: &str = "server {\n  listen 80;\n  server_name localhost;\n  location / {\n    root /usr/share/nginx/html;\n    index index.html index.htm;\n  }\n}\n";
const NGINX_PAGE: &str = "<!DOCTYPE html>\n<html>\n<head><title>Welcome to nginx!</title></head>\n<body><h1>Welcome to nginx!</h1></body>\n</html>\n";
/// In a container, the network around it is the protection: as in the usual redis image, clients from other hosts may connect.
const REDIS_SERVER: &str = "#!/bin/sh\nconfig=\ncase \"$1\" in -*|'') ;; *) config=$1; shift ;; esac\nexec /usr/bin/redis-check-rdb-server $config --protected-mode no --daemonize no \"$@\"\n";

impl Recipe {
    /// The images that `up` provides.
    #[must_use]
    pub fn all() -> Vec<Self> {
        ["busybox", "nginx", "redis"].into_iter().filter_map(Self::named).collect()
    }

    /// A recipe of ours.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut recipe = Self::plain(&[name.to_owned()]);
        match name {
            "busybox" => {
                recipe.packages = vec!["busybox-static".into()];
                recipe.cmd = vec!["sh".into()];
            }
            "nginx" => {
                recipe.packages = ["nginx", "nginx-common", "busybox-static"].map(str::to_owned).to_vec();
                recipe.files.extend([
                    ("etc/nginx/nginx.conf".to_owned(), 0o644, NGINX_CONF.to_owned()),
                    ("etc/nginx/conf.d/default.conf".to_owned(), 0o644, NGINX_SITE.to_owned()),
                    ("usr/share/nginx/html/index.html".to_owned(), 0o644, NGINX_PAGE.to_owned()),
                ]);
                recipe
                    .folders
                    .extend([("var/lib/nginx".to_owned(), 0o755), ("var/log/nginx".to_owned(), 0o755)]);
                recipe.cmd = ["nginx", "-g", "daemon off;"].map(str::to_owned).to_vec();
                recipe.ports = vec![80];
            }
            "redis" => {
                recipe.packages =
                    ["redis-server", "redis-tools", "busybox-static"].map(str::to_owned).to_vec();
                recipe.files.push((
                    "usr/local/bin/redis-server".to_owned(),
                    0o755,
                    REDIS_SERVER.replace("redis-check-rdb-server", "redis-server"),
                ));
                recipe.folders.push(("data".to_owned(), 0o1777));
                recipe.cmd = vec!["redis-server".into()];
                recipe.ports = vec![6379];
            }
            _ => return None,
        }
        Some(recipe)
    }

    /// Packages as they are, with a shell.
    #[must_use]
    pub fn plain(packages: &[String]) -> Self {
        let name = packages.first().cloned().unwrap_or_default();
        let mut whole = packages.to_vec();
        whole.push("busybox-static".to_owned());
        Self {
            tag: format!("{name}:latest"),
            name,
            packages: whole,
            files: vec![
                ("etc/passwd".to_owned(), 0o644, PASSWD.to_owned()),
                ("etc/group".to_owned(), 0o644, GROUP.to_owned()),
            ],
            links: Vec::new(),
            folders: [
                ("tmp", 0o1777),
                ("run", 0o755),
                ("root", 0o700),
                ("proc", 0o755),
                ("sys", 0o755),
                ("dev", 0o755),
                ("etc", 0o755),
            ]
            .map(|(path, mode)| (path.to_owned(), mode))
            .to_vec(),
            cmd: vec!["sh".to_owned()],
            ports: Vec::new(),
        }
    }

    /// The tag as containerd names images: `nginx:latest` → `docker.io/library/nginx:latest`.
    #[must_use]
    pub fn reference(&self) -> String {
        let (name, version) = self
            .tag
            .rsplit_once(':')
            .filter(|(_, version)| !version.contains('/'))
            .unwrap_or((&self.tag, "latest"));
        let registry = name.split('/').next().filter(|first| {
            name.contains('/') && (first.contains('.') || first.contains(':') || *first == "localhost")
        });
        let path = match (registry, name.contains('/')) {
            (Some(_), _) => name.to_owned(),
            (None, true) => format!("docker.io/{name}"),
            (None, false) => format!("docker.io/library/{name}"),
        };
        format!("{path}:{version}")
    }

    /// Changes when the recipe does, so that the cache holds no stale image.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(format!("{BUILDER}{self:?}"))[..6])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_completed_as_docker_does() {
        let tagged =
            |tag: &str| Recipe { tag: tag.to_owned(), ..Recipe::plain(&["x".to_owned()]) }.reference();
        assert_eq!(tagged("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(tagged("me/tool:2"), "docker.io/me/tool:2");
        assert_eq!(tagged("localhost:5000/tool"), "localhost:5000/tool:latest");
    }
}
