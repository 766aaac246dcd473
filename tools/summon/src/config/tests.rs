//! Tests of valid files, and of the message for each mistake.

use super::*;

const EXAMPLE: &str = include_str!("../../../examples/summon.toml");
const DAEMON: &str = "[daemon]\nlisten = []\n";
/// A service, from line 3 on, after `DAEMON`.
const WWW: &str = "[[services]]
name = \"www\"
hosts = [\"www.example.test\"]
zone = \"example.test\"
image = \"/guest/mayfly\"
ipv4 = \"10.0.2.80/24\"
";

fn parsed(text: &str) -> SummonConfig {
    match read::file("f", text) {
        Ok(read) => read.config,
        Err(problems) => panic!("{problems}"),
    }
}

fn problems(text: &str) -> String {
    match read::file("f", text) {
        Ok(read) => panic!("{:?}", read.config),
        Err(problems) => problems.to_string(),
    }
}

#[track_caller]
fn wrong(text: &str, expected: &[&str]) {
    let told = problems(text);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line} is not {expected}");
    }
}

/// Adds line 3 to `[daemon]`.
#[track_caller]
fn wrong_daemon(line: &str, expected: &str) {
    wrong(
        &format!("{DAEMON}{line}\n{WWW}"),
        &[&format!("f:3: {expected}")],
    );
}

/// Adds line 9 to the service.
#[track_caller]
fn wrong_service(line: &str, expected: &str) {
    wrong(
        &format!("{DAEMON}{WWW}{line}\n"),
        &[&format!("f:9: {expected}")],
    );
}

#[test]
fn the_example_is_understood() {
    let config = parsed(EXAMPLE);
    let [www, wiki] = &config.services[..] else {
        panic!("{config:?}");
    };
    assert_eq!(www.hosts, ["www.example.test", "example.test"]);
    assert_eq!(
        www.command_line(),
        "ip=10.0.2.80/24 ip=fd00:2::80/64 gw=10.0.2.2 endpoints=all"
    );
    assert_eq!(www.idle_hard, Some(Duration::from_secs(3600)));
    assert_eq!(wiki.asleep, Asleep::Pool);
    assert_eq!(
        wiki.command_line(),
        "ip=10.0.2.81/24 endpoints=healthz,metrics"
    );
    // The MAC address that `hatch create` gives to a guest of this name.
    assert_eq!(wiki.mac, mayfly_toolstack::config::own_mac(b"wiki"));
    assert_eq!(config.daemon.listen.len(), 2);
}

/// Every commented-out key of the example has its default, and no key is missing: with all of them the configuration is
/// the same.
#[test]
fn the_example_says_the_defaults() {
    let own = [
        "forward",
        "forward_for",
        "nsid",
        "mac",
        "lifetime",
        "answer",
        "network",
        "name",
        "file",
    ];
    let all: Vec<_> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key)
                if key
                    .split_once(" = ")
                    .is_some_and(|(name, _)| !name.contains([' ', '`'])) =>
            {
                if own.iter().any(|own| key.starts_with(own)) {
                    ""
                } else {
                    key
                }
            }
            _ => line,
        })
        .collect();
    let all = all.join("\n");
    assert!(all.contains("\nburst = 20"), "{all}");
    assert_eq!(parsed(&all), parsed(EXAMPLE));
    // The first two keys need each other.
    for keys in [
        &own[..2],
        &own[2..3],
        &own[3..4],
        &own[4..5],
        &own[5..6],
        &own[6..7],
    ] {
        let is_one = |line: &str| {
            let key = line
                .strip_prefix("# ")
                .and_then(|line| line.split(" = ").next());
            key.is_some_and(|key| keys.contains(&key))
        };
        let lines = EXAMPLE.lines();
        let with = lines.map(|line| match is_one(line) {
            true => line.trim_start_matches("# "),
            false => line,
        });
        let with: Vec<_> = with.collect();
        assert_ne!(parsed(&with.join("\n")), parsed(EXAMPLE), "{keys:?}");
    }
}

#[test]
fn every_key_is_in_the_document() {
    let document = include_str!("../../../../docs/summon.md");
    let keys = document.split("## Keys").nth(1).unwrap();
    for line in EXAMPLE.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = line
            .split_once(" = ")
            .filter(|(key, _)| !key.contains([' ', '`']))
        else {
            continue;
        };
        let names = [format!("| `{key}`"), format!(", `{key}` |")];
        assert!(names.iter().any(|name| keys.contains(name)), "{key}");
    }
}

#[test]
fn what_becomes_of_guests_when_files_are_replaced() {
    let of = |daemon: &str, service: &str| {
        let text = format!("{DAEMON}{daemon}\n{WWW}{service}\n");
        parsed(&text).services[0].on_change
    };
    let restart = "on_change = \"restart when idle\"";
    let keep = "on_change = \"keep\"";
    assert_eq!(of("", ""), OnChange::Keep);
    assert_eq!(of("", restart), OnChange::RestartWhenIdle);
    assert_eq!(of(restart, ""), OnChange::RestartWhenIdle);
    assert_eq!(of(restart, keep), OnChange::Keep);
}

#[test]
fn the_least_is_enough() {
    let config = parsed(&format!("{DAEMON}{WWW}"));
    assert_eq!(config.daemon.limits, SummonLimits::default());
    assert_eq!(config.daemon.socket, Path::new(SOCKET));
    assert!(config.daemon.guard && config.services[0].on_demand);
    assert_eq!(config.daemon.netback_threads, NetbackThreads::Batch);
    let daemon = format!("{DAEMON}netback_threads = \"normal\"\n");
    let config = parsed(&format!("{daemon}{WWW}"));
    assert_eq!(config.daemon.netback_threads, NetbackThreads::Normal);
    assert_eq!(config.services[0].idle, Duration::from_secs(60));
}

#[test]
fn a_back_end_is_chosen_for_services_that_name_none() {
    let of = |daemon: &str, service: &str| {
        let mut config = parsed(&format!("{DAEMON}{daemon}\n{WWW}{service}\n"));
        config.choose_networks(|_| Network::Switch);
        config.services[0].network
    };
    let netback = "network = \"netback\"";
    assert_eq!(of("", ""), Network::Switch);
    assert_eq!(of(netback, ""), Network::Netback);
    assert_eq!(of("", netback), Network::Netback);
    assert_eq!(of(netback, "network = \"switch\""), Network::Switch);
}

#[test]
fn names_are_written_alike() {
    let text = format!("{DAEMON}{WWW}").replace("www.example.test", "WWW.Example.TEST.");
    assert_eq!(parsed(&text).services[0].hosts, ["www.example.test"]);
    let text =
        format!("{DAEMON}{WWW}").replace("zone = \"example.test\"", "zone = \"Example.Test.\"");
    assert_eq!(parsed(&text).services[0].zone, "example.test");
}

#[test]
fn all_problems_are_told_with_their_lines() {
    let text = "[daemon]
lisen = []
ttl = 0

[daemon.limits]
running = \"many\"

[[services]]
name = \"a/b\"
hosts = [
  \"www.example.test\",
  \"www.elsewhere.test\",
  \"-\",
]
zone = \"example.test\"
memory = 0
ipv4 = \"10.0.2.80\"
colour = \"red\"
";
    wrong(
        text,
        &[
            "f:1: [daemon] needs listen, like listen = [\"192.0.2.1:53\"], where",
            "f:2: [daemon] has no \"lisen\"; it has listen, forward, forward_for, limits, bridge,",
            "f:3: ttl: 0 is not 1 to 3600",
            "f:6: running: invalid type: string \"many\", expected usize",
            "f:8: [[services]] needs image, like image = \"/guest/mayfly\"",
            "f:9: \"a/b\" is not a name: a name has 1 to 128 printable characters",
            "f:12: hosts: www.elsewhere.test is not in the zone example.test",
            "f:13: hosts: - is not in the zone",
            "f:16: memory: 0 is not 1 to 3840",
            "f:17: ipv4: \"10.0.2.80\" is not a host's address",
            "f:18: [[services]] has no \"colour\"; it has name, zone, hosts,",
        ],
    );
}

#[test]
fn what_is_not_toml() {
    let text = format!("{DAEMON}{WWW}=\n{WWW}name = \"twice\"\n");
    let told = problems(&text);
    assert!(
        told.contains("f:9: ") && told.contains("f:16: duplicate key"),
        "{told}"
    );
    assert!(problems("").contains("f: [daemon] is missing"));
    assert!(problems(DAEMON).contains("f: there are no [[services]]"));
    assert!(problems("daemon = 1").contains("f:1: this has to be a table, below [daemon]"));
    let told = problems("services = 1\n[daemon]\nlisten = []");
    assert!(told.contains("f:1: services is a list of tables, each below [[services]]"));
}

#[test]
fn what_the_daemon_cannot_have() {
    wrong_daemon(
        "bridge = \"a b\"",
        "bridge: \"a b\" cannot be the name of a network link",
    );
    wrong_daemon("status = \"here\"", "status: invalid socket address syntax");
    wrong_daemon(
        "forward = \"0.0.0.0:53\"\nforward_for = [\"10.0.0.0/8\"]",
        "forward: 0.0.0.0:53 is not the address and port of another resolver",
    );
    wrong_daemon(
        "forward = \"192.0.2.53:53\"",
        "forward needs forward_for, the networks whose queries are forwarded",
    );
    wrong_daemon(
        "forward_for = [\"10.0.0.0/8\"]",
        "forward_for: there is no forward",
    );
    wrong_daemon(
        "forward_for = [\"10.0.0.0/33\"]\nforward = \"192.0.2.53:53\"",
        "forward_for: invalid IP address syntax",
    );
    wrong_daemon(
        "pool = -1",
        "pool: invalid value: integer `-1`, expected usize",
    );
    wrong_daemon(
        "limits = {held_bytes = 100}",
        "held_bytes: 100 is not 1514 to 16777216",
    );
    let own = format!("[daemon]\nlisten = [\"10.0.2.80:53\", \"10.0.2.80:53\"]\n{WWW}");
    wrong(
        &own,
        &[
            "f:2: the socket 10.0.2.80:53 is taken, in line 2",
            "f:8: the address 10.0.2.80 is taken, in line 2",
        ],
    );
}

#[test]
fn what_a_service_cannot_have() {
    wrong_service(
        "mac = \"01:00:00:00:00:01\"",
        "mac: \"01:00:00:00:00:01\" is not the MAC address of one device",
    );
    wrong_service("mac = \"00:00:00:00:00:00\"", "mac: ");
    wrong_service(
        "ipv6 = \"fe80::1/64\"",
        "ipv6: \"fe80::1/64\" is not a host's address",
    );
    wrong_service("ipv6 = \"10.0.2.81/24\"", "ipv6: ");
    wrong_service(
        "gateway = \"10.0.3.1\"",
        "gateway: 10.0.3.1 is not another address in the network",
    );
    wrong_service("gateway = \"10.0.2.80\"", "gateway: ");
    wrong_service(
        "idle = 19.5",
        "idle: 19.5 s are less than twice daemon.ttl, 10 s",
    );
    wrong_service("idle = -1", "idle: -1 is not a time in seconds");
    wrong_service("idle_hard = 30", "idle_hard: 30 s are less than idle, 60 s");
    wrong_service(
        "asleep = \"awake\"",
        "asleep: \"awake\" is unknown; \"destroy\", \"pool\" and \"suspend\"",
    );
    wrong_service(
        "asleep = \"pool\"",
        "asleep: there is no pool: [daemon] needs pool",
    );
    wrong_daemon(
        "netback_threads = \"fast\"",
        "netback_threads: \"fast\" is unknown; \"batch\" and \"normal\"",
    );
    wrong_service(
        "network = \"bridge\"",
        "network: \"bridge\" is unknown; \"netback\" and \"switch\"",
    );
    wrong_service(
        "on_demand = \"no\"",
        "on_demand: invalid type: string \"no\", expected a boolean",
    );
    let long = format!("cmdline = \"{}\"", "x".repeat(4095));
    wrong(
        &format!("{DAEMON}{WWW}{long}"),
        &["f:3: its command line has 4137 bytes"],
    );
    wrong(
        &format!("{DAEMON}limits.memory = 4\n{WWW}"),
        &["f:4: its 8 MiB of memory are more than all guests may have together, 4"],
    );
    for address in [
        "10.0.2.0/24",
        "10.0.2.255/24",
        "224.0.0.1/4",
        "0.0.0.0/8",
        "10.0.2.80/33",
        "::1/64",
    ] {
        let text = format!("{DAEMON}{WWW}").replace("10.0.2.80/24", address);
        wrong(
            &text,
            &[&format!("f:8: ipv4: \"{address}\" is not a host's address")],
        );
    }
    for name in ["", "12", "a b"] {
        let text =
            format!("{DAEMON}{WWW}").replace("name = \"www\"", &format!("name = \"{name}\""));
        let expected = format!("f:4: {name:?} is not a name: a name has 1 to 128");
        assert!(problems(&text).starts_with(&expected));
    }
    for zone in ["", ".", "a..b", "a b", "münchen.test"] {
        let text = format!("{DAEMON}{WWW}")
            .replace("zone = \"example.test\"", &format!("zone = \"{zone}\""));
        assert!(problems(&text).contains("f:6: zone: "), "{zone}");
    }
}

#[test]
fn what_two_services_cannot_both_have() {
    let second = WWW.replace("name =", "mac = \"00:16:3e:00:00:01\"\nname =");
    wrong(
        &format!("{DAEMON}{second}{second}"),
        &[
            "f:11: the MAC address 00:16:3e:00:00:01 is taken, in line 4",
            "f:12: the name www is taken, in line 5",
            "f:13: the host www.example.test is taken, in line 6",
            "f:16: the address 10.0.2.80 is taken, in line 9",
        ],
    );
    let other = |address: &str, zone: &str| {
        let other = WWW.replace("\"www\"", "\"other\"");
        let other = other.replace("www.example.test", "www.a.example.test");
        other
            .replace("10.0.2.80/24", address)
            .replace("\"example.test\"", zone)
    };
    wrong(
        &format!("{DAEMON}{WWW}{}", other("10.0.2.81/16", "\"example.test\"")),
        &["f:14: 10.0.2.81/16 has another prefix length than 10.0.2.80/24 in line 8"],
    );
    // Another network on the same bridge is allowed.
    parsed(&format!(
        "{DAEMON}{WWW}{}",
        other("10.0.3.81/25", "\"a.example.test\"")
    ));
    // A zone below another zone would hide the host.
    let below = WWW
        .replace("\"www\"", "\"third\"")
        .replace("www.example.test", "a.example.test");
    let below = below
        .replace("10.0.2.80", "10.0.2.82")
        .replace("\"example.test\"", "\"a.example.test\"");
    wrong(
        &format!(
            "{DAEMON}{}{below}",
            other("10.0.2.81/24", "\"example.test\"")
        ),
        &[
            "f:5: hosts: www.a.example.test is in the zone a.example.test of line 12, not in example.test",
        ],
    );
}

#[test]
fn files_that_are_not_there_are_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summon.toml");
    std::fs::write(&path, format!("{DAEMON}{WWW}site = \"/nowhere/site\"\n")).unwrap();
    let (config, warnings) = SummonConfig::check(&path).unwrap();
    assert_eq!(config, SummonConfig::load(&path).unwrap());
    let lines: Vec<_> = warnings.all.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [7, 9], "{warnings}");
    assert!(warnings.to_string().contains("/guest/mayfly: "));
    assert!(SummonConfig::load(&folder.path().join("other")).is_err());
}
