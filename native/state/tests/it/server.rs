//! A PostgreSQL server of a test's own.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use authz_state::store::{PostgresSettings, PostgresStore, StoreOpenError};

use crate::support::{Lines, folder};

/// Programs of the newest server that is installed where Debian puts it, or of the one on the path.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|one| one.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    path.append(&mut folders);
    path.into_iter().rev().find(|folder| folder.join("initdb").exists())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

/// A running server. Ends when dropped.
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    running: Option<Child>,
}

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

impl Server {
    /// Makes and starts one; none, and a line that says so, where PostgreSQL is not installed.
    pub fn start(name: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("PostgreSQL is not installed (Debian: postgresql): its tests are left out");
            return None;
        };
        let folder = folder(&format!("pg-{name}"));
        if is_root() {
            let done = Command::new("chown").arg("postgres").arg(&folder).status().unwrap();
            assert!(done.success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { programs, folder, port, running: None };
        let data = server.data();
        server.run("initdb", |command| {
            command.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
            command.args(["--no-sync", "-D"]).arg(&data)
        });
        server.up();
        Some(server)
    }

    /// A streaming standby of this server.
    pub fn standby(&self, name: &str) -> Self {
        let folder = folder(&format!("pg-{name}"));
        if is_root() {
            let done = Command::new("chown").arg("postgres").arg(&folder).status().unwrap();
            assert!(done.success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut standby = Self { programs: self.programs.clone(), folder, port, running: None };
        let data = standby.data();
        standby.run("pg_basebackup", |command| {
            command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
            command.args(["--no-sync", "--checkpoint=fast", "-R", "-D"]).arg(&data)
        });
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        standby.up();
        standby
    }

    /// Id of the process that accepts connections.
    pub fn pid(&self) -> String {
        self.running.as_ref().unwrap().id().to_string()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of the server, as the user that it wants.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        // The server ends with the test, however that ends; it refuses to run as root.
        let mut command = if Command::new("setpriv").arg("--version").output().is_ok() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "QUIT"]);
            if is_root() {
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            }
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
        command
    }

    fn run(&self, program: &str, with: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = self.command(program);
        let output = with(&mut command).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it and waits until it answers.
    pub fn up(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder);
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        for setting in ["fsync=off", "max_connections=60", "hot_standby=on", "shared_buffers=32MB"]
        {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.folder.with_extension("log")).unwrap();
        self.running = Some(command.stderr(log).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        while self.try_sql("SELECT 1").is_none() {
            assert!(Instant::now() < until, "the server does not start");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Stops it: `INT` ends its connections, `QUIT` is a crash.
    pub fn down(&mut self, signal: &str) {
        if let Some(mut running) = self.running.take() {
            let pid = running.id().to_string();
            drop(Command::new("kill").args(["-s", signal, &pid]).status());
            drop(running.wait());
        }
    }

    /// Restarts it with a certificate.
    pub fn enable_tls(&mut self, certificate: &str, key: &str) {
        self.down("INT");
        let data = self.data();
        std::fs::write(data.join("server.crt"), certificate).unwrap();
        std::fs::write(data.join("server.key"), key).unwrap();
        std::fs::set_permissions(data.join("server.key"), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        if is_root() {
            let mut chown = Command::new("chown");
            chown.arg("postgres").args([data.join("server.key"), data.join("server.crt")]);
            assert!(chown.status().unwrap().success());
        }
        let mut settings = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
        settings.push_str("\nssl = on\n");
        std::fs::write(data.join("postgresql.conf"), settings).unwrap();
        self.up();
    }

    pub fn promote(&self) {
        self.run("pg_ctl", |command| command.args(["promote", "-w", "-D"]).arg(self.data()));
    }

    fn try_sql(&self, sql: &str) -> Option<String> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        command.args(["-v", "ON_ERROR_STOP=1", "-qAtc", sql]).stderr(Stdio::null());
        let output = command.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|| panic!("{sql}"))
    }

    /// A session that does something in the background. Ends when dropped.
    pub fn session(&self, sql: &str) -> Session {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        command.args(["-qAtc", sql]).stdout(Stdio::null()).stderr(Stdio::null());
        Session(command.spawn().unwrap())
    }

    /// A new schema: what is kept there meets nothing else.
    pub fn schema(&self) -> String {
        let schema = format!("s{}", SCHEMAS.fetch_add(1, Ordering::SeqCst));
        self.sql(&format!("CREATE SCHEMA {schema}"));
        schema
    }

    pub fn dsn(&self, schema: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres options='-c search_path={schema}'",
            self.port
        )
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down("QUIT");
        drop(std::fs::remove_dir_all(&self.folder));
        drop(std::fs::remove_file(Path::new(&self.folder).with_extension("log")));
    }
}

pub struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub fn settings(dsn: &str, node: &str) -> PostgresSettings {
    PostgresSettings::new(dsn.to_owned(), node.to_owned())
}

pub fn open(dsn: &str, node: &str, lines: &Lines) -> PostgresStore {
    try_open(settings(dsn, node), lines).unwrap()
}

pub fn try_open(
    settings: PostgresSettings,
    lines: &Lines,
) -> Result<PostgresStore, StoreOpenError> {
    PostgresStore::open(settings, lines.sink())
}
