//! The package's service under a real systemd, the first process of a container that a test makes:
//! `tests/systemd/boot.sh`. Wants to be root; `tests/run` leaves these out where it cannot run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::process::{Ended, Process, run};
use crate::support::until;

/// What every script begins with: the service's name, its main process, and waiting for a
/// condition.
const PRELUDE: &str = r#"
set -euo pipefail
service=collibra-auth-proxy
etc=/etc/$service
main_process() { systemctl show -P MainPID $service; }
await() {
    for _ in $(seq 400); do
        ! eval "$1" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    echo "in vain: $1" >&2
    exit 1
}
in_flight() { curl -s localhost:9902/metrics | grep -q "requests_in_flight{.* $1\$"; }
"#;

/// The registered client at the simulated Collibra, and the address where the service finds it.
const PREPARE: &str = r#"
sed -i 's#https://acme.collibra.com#http://127.0.0.1:9400#' $etc/$service.toml
cd $etc/credentials
printf one | install -m 640 -g $service /dev/stdin client_id
printf s3cret | install -m 640 -g $service /dev/stdin client_secret
systemd-run --quiet --unit=collibra --service-type=exec \
    $service simulate --listen 127.0.0.1:9400 --client one:s3cret
await 'curl -s 127.0.0.1:9400/rest/2.0/application/info'
"#;

/// A container with systemd, the package's files, and a simulated Collibra.
struct Machine {
    boot: Process,
    group: String,
}

impl Machine {
    fn boot() -> Machine {
        let group = format!(
            "collibra-auth-proxy-{:016x}",
            collibra_auth_proxy::random::unique()
        );
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut boot = Command::new(top.join("tests/systemd/boot.sh"));
        boot.arg(&group)
            .arg(env!("CARGO_BIN_EXE_collibra-auth-proxy"));
        let mut machine = Machine {
            boot: Process::spawn(&mut boot),
            group,
        };
        until("a systemd that runs", || {
            assert!(machine.boot.runs(), "{}", machine.boot.err.all());
            let state = machine.start("systemctl is-system-running")?;
            state.out.contains("running").then_some(())
        });
        machine.run(PREPARE);
        machine
    }

    /// The id of the container's first process, once there is one.
    fn first(&self) -> Option<u32> {
        let boot = self.boot.id();
        let path = format!("/proc/{boot}/task/{boot}/children");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// Runs a script in the container to its end, however that is, if there is a container.
    fn start(&self, script: &str) -> Option<Ended> {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.first()?.to_string());
        command.args([
            "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--",
        ]);
        command.args(["bash", "-c", &format!("{PRELUDE}{script}")]);
        Some(run(&mut command))
    }

    /// Runs a script that succeeds; gives what it prints.
    fn run(&self, script: &str) -> String {
        let ended = self.start(script).unwrap();
        let log = || {
            let journal = "journalctl --no-pager --output cat -u $service | tail -n 30";
            self.start(journal).unwrap().out
        };
        assert_eq!(ended.status, 0, "{}{}{}", ended.out, ended.err, log());
        ended.out
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // the container ends with `unshare`, whose child its first process is
        self.boot.kill();
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let mut lines = mounts.lines().map(|line| line.split(' '));
        let unified = lines.find_map(|mut mount| {
            let path = mount.nth(1)?;
            (mount.next()? == "cgroup2").then(|| PathBuf::from(path))
        });
        let Some(group) = unified.map(|unified| unified.join(&self.group)) else {
            return;
        };
        // its processes are killed one after the other
        until("a control group without processes", || {
            let mut remove = Command::new("find");
            remove.arg(&group);
            remove.args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
            let _ = remove.output();
            (!group.exists()).then_some(())
        });
    }
}

#[test]
fn a_stop_after_an_upgrade_cuts_nothing() {
    let machine = Machine::boot();
    let sizes = machine.run(
        r#"
systemctl start $service
$service wait
old=$(main_process)
systemctl kill --kill-whom=main -s USR2 $service
await '[ "$(main_process)" != '$old' ] && [ ! -e /proc/'$old' ]'
for _ in 1 2 3 4; do
    curl -sS -o /dev/null -w '%{size_download}\n' \
        'http://localhost:8080/_bytes/40?piece=10&pause=2000' >>/tmp/sizes &
done
await 'in_flight 4'
systemctl stop $service
wait
cat /tmp/sizes
[ "$(systemctl show -P Result $service)" = success ]
"#,
    );
    assert_eq!(sizes, "40\n40\n40\n40");
}

#[test]
fn a_reload_says_whether_it_worked_and_a_rotation_reaches_the_service() {
    let machine = Machine::boot();
    machine.run(
        r#"
runuser -u $service -- $service check --live --config $etc/$service.toml
systemctl start $service
$service wait
systemctl reload $service
cp $etc/$service.toml /tmp/sound
echo 'no TOML' >>$etc/$service.toml
! systemctl reload $service
systemctl is-active $service
curl -sSf http://localhost:8080/rest/2.0/application/info
cp /tmp/sound $etc/$service.toml
systemctl reload $service
"#,
    );
    let used = machine.run(
        r#"
echo admin >/tmp/password
$service clients rotate --client catalog --config $etc/$service.toml \
    --user admin --password-file /tmp/password >&2
[ "$(cat $etc/credentials/client_id)" != one ]
[ "$(stat -c %U:%G:%a $etc/credentials/client_secret)" = root:$service:640 ]
await 'curl -s localhost:9902/api/status | grep -q "\"client_id\":\"$(cat $etc/credentials/client_id)\""'
curl -sS -o /dev/null -w '%{http_code}' http://localhost:8080/rest/2.0/application/info
"#,
    );
    assert_eq!(used, "200");
}

#[test]
fn the_socket_unit_outlives_restarts_a_missing_secret_and_an_upgrade_of_the_package() {
    let machine = Machine::boot();
    machine.run(
        r#"
groupadd apps
mkdir -p /etc/systemd/system/$service.socket.d
cat >/etc/systemd/system/$service.socket.d/override.conf <<END
[Socket]
ListenStream=
ListenStream=/run/$service/apps.sock
SocketGroup=apps
SocketMode=0660
END
sed -i "s|^address = .*|address = \"unix:/run/$service/apps.sock\"|" $etc/$service.toml
systemctl daemon-reload
systemctl start $service.socket
"#,
    );
    let call = r#"
call() { curl -sS -m 30 -o /dev/null -w '%{http_code}\n' --unix-socket /run/$service/apps.sock "http://localhost/$1"; }
is_of_apps() { [ "$(stat -c %G:%a /run/$service/apps.sock)" = apps:660 ]; }
"#;
    let restarted = machine.run(&format!(
        r#"{call}
call x
for _ in $(seq 12); do systemctl restart $service; done
is_of_apps
call x
systemctl stop $service
is_of_apps
call x
"#
    ));
    assert_eq!(restarted, "200\n200\n200");
    let waited = machine.run(&format!(
        r#"{call}
systemctl stop $service
mv $etc/credentials/client_secret /tmp
call x >/tmp/answer &
sees() {{ journalctl --no-pager --output cat -u $service | grep -c 'client_secret_file: the file cannot be read'; }}
await '[ "$(sees)" -ge 4 ]'
systemctl is-active $service.socket >&2
mv /tmp/client_secret $etc/credentials
wait
cat /tmp/answer
"#
    ));
    assert_eq!(waited, "200");
    // as dpkg does after an upgrade from 0.0.1
    let upgraded = machine.run(&format!(
        r#"{call}
began=$(systemctl show -P ActiveEnterTimestampMonotonic $service.socket)
old=$(main_process)
for _ in $(seq 16); do call '_bytes/40?piece=10&pause=2000' >>/tmp/answers & done
await 'in_flight 16'
/usr/lib/package/postinst configure 0.0.1-1 &
for _ in $(seq 16); do call x >>/tmp/answers & sleep 0.05; done
wait
[ "$(main_process)" != $old ]
[ "$(systemctl show -P ActiveEnterTimestampMonotonic $service.socket)" = $began ]
sort /tmp/answers | uniq -c
"#
    ));
    assert_eq!(upgraded.trim(), "32 200");
}

#[test]
fn a_journal_that_stands_still_holds_nothing_up() {
    let machine = Machine::boot();
    machine.run(
        r#"
systemctl start $service
$service wait
kill -STOP $(systemctl show -P MainPID systemd-journald)
dropped() { curl -s localhost:9902/metrics | awk '$1 ~ /log_lines_dropped_total$/ { print $2 }'; }
# long lines fill the journal's socket, and the proxy's own 4 MiB, in a few thousand calls
long=$(printf 'x%.0s' $(seq 4000))
many() { seq 500 | sed "s|.*|url = http://localhost:8080/$long\noutput = /dev/null|" | curl -sSf --config -; }
await 'many; [ "$(dropped)" -gt 0 ]'
curl -sSf -m 1 localhost:9902/livez
old=$(main_process)
systemctl restart $service
[ "$(main_process)" != $old ]
kill -CONT $(systemctl show -P MainPID systemd-journald)
"#,
    );
}

#[test]
fn a_port_below_1024_wants_the_override_that_the_unit_names() {
    let machine = Machine::boot();
    machine.run(
        r#"
sed -i 's|^address = .*|address = "127.0.0.1:443"|' $etc/$service.toml
! systemctl start $service
systemctl stop $service
mkdir -p /etc/systemd/system/$service.service.d
sed -n 's/^#   //p' /usr/lib/systemd/system/$service.service >/etc/systemd/system/$service.service.d/override.conf
systemctl daemon-reload
systemctl start $service
$service wait
curl -sSf http://localhost:443/rest/2.0/application/info
"#,
    );
}
