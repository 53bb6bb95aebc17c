//! The network of a step, on a host that the test makes: nothing of this machine's is changed.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use kiln_tests::program::said;
use kiln_tests::world::{INTERNET, RAW_PACKETS, World, ask, eventually, folder, lines};

/// That nothing of Kiln's is on the host.
fn assert_nothing_is_left(world: &World) {
    eventually("an interface is left", || !world.sh("ip -o link").contains("kiln"));
    eventually("a table is left", || !world.tables().contains("kiln"));
    assert!(!world.sh("ip route show table all").contains("kiln"));
}

#[test]
fn a_step_reaches_the_world_from_the_hosts_address() {
    let Some(world) = World::make("network::a_step_reaches_the_world_from_the_hosts_address") else { return };
    let folder = folder();
    let dockerfile = format!(
        "FROM busybox\nRUN ls /sys/class/net | tr '\\n' ' '; echo; {}\nRUN nslookup some.name | grep Address\n\
         RUN cat /etc/resolv.conf /etc/hosts\n",
        ask()
    );
    let said = world.built(folder.path(), &dockerfile, &["--add-host", "outside:host-gateway"]);
    let lines = lines(&said);
    for expected in ["eth0 lo ", "from 203.0.113.1", "nameserver 203.0.113.9"] {
        assert!(lines.contains(&expected), "{expected}: {said}");
    }
    assert!(lines.iter().any(|line| line.starts_with("Address") && line.ends_with(INTERNET)), "{said}");
    assert!(lines.iter().any(|line| line.starts_with("10.211.") && line.ends_with(".1\toutside")), "{said}");
    assert!(!said.contains("WARN"), "{said}");
    assert_nothing_is_left(&world);
}

#[test]
fn a_step_reaches_the_host_by_its_gateway_and_not_its_loopback() {
    let Some(world) = World::make("network::a_step_reaches_the_host_by_its_gateway_and_not_its_loopback")
    else {
        return;
    };
    let _server = world.server(
        "import socket, threading\n\
         abstract = socket.socket(socket.AF_UNIX); abstract.bind('\\0kiln-test'); abstract.listen()\n\
         def serve(address, port, text):\n\
         \x20   s = socket.create_server((address, port))\n\
         \x20   def loop():\n\
         \x20       while True:\n\
         \x20           c, _ = s.accept(); c.sendall(text); c.close()\n\
         \x20   threading.Thread(target=loop, daemon=True).start()\n\
         serve('127.0.0.1', 8001, b'LOOPBACK\\n')\n\
         serve('0.0.0.0', 8002, b'GATEWAY\\n')",
    );
    let ask = "for host in 127.0.0.1 gateway; do for port in 8001 8002; do \
               nc -w 2 $(awk -v h=$host '$2 == h || $1 == h { print $1; exit }' /etc/hosts) $port </dev/null; done; done; \
               echo sockets: $(grep -c kiln-test /proc/net/unix)";
    let folder = folder();
    let flags = |network| ["--network", network, "--add-host", "gateway:host-gateway"];
    let said = world.built(folder.path(), &format!("FROM busybox\nRUN {ask}\n"), &flags("default"));
    let own = lines(&said);
    assert_eq!(own.iter().filter(|line| **line == "GATEWAY").count(), 1, "{said}");
    assert!(!own.contains(&"LOOPBACK") && own.contains(&"sockets: 0"), "{said}");
    // What the host's network is, so that the test would notice.
    let said = world.built(folder.path(), &format!("FROM busybox\nRUN {ask}\n"), &flags("host"));
    let shared = lines(&said);
    assert!(shared.contains(&"LOOPBACK") && shared.contains(&"sockets: 1"), "{said}");
}

#[test]
fn steps_do_not_see_each_other() {
    let Some(world) = World::make("network::steps_do_not_see_each_other") else { return };
    let folder = folder();
    // Both at once: each waits until the other was there, by a cache mount that they share.
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/meet ip -4 -o addr show eth0 | awk '{{ print $4 }}' | cut -d/ -f1 > /address; \
             (nc -l -p 5000 < /dev/null > /got & echo $! > /pid); cp /address /meet/{own}; \
             n=0; until [ -e /meet/{other} ] || [ $n = 100 ]; do sleep 0.1; n=$((n + 1)); done; \
             echo here is {own} $(cat /address), there $(cat /meet/{other}); \
             (echo intruder | nc -w 2 $(cat /meet/{other}) 5000) && echo REACHED; ping -c 1 -W 1 $(cat /meet/{other}) && echo REACHED; \
             echo done > /meet/{own}-done; n=0; until [ -e /meet/{other}-done ] || [ $n = 100 ]; do sleep 0.1; n=$((n + 1)); done; \
             kill $(cat /pid); test ! -s /got"
        )
    };
    let dockerfile = format!(
        "FROM busybox AS a\n{}\nFROM busybox AS b\n{}\nFROM scratch\nCOPY --from=a /got /a\nCOPY --from=b /got /b\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let said = world.built(folder.path(), &dockerfile, &[]);
    let lines = lines(&said);
    assert!(!lines.contains(&"REACHED"), "{said}");
    let met = lines.iter().filter(|line| line.starts_with("here is") && line.matches("10.211.").count() == 2);
    assert_eq!(met.count(), 2, "{said}");
}

#[test]
fn many_steps_at_once_reach_the_world() {
    let Some(world) = World::make("network::many_steps_at_once_reach_the_world") else { return };
    let folder = folder();
    let stages: String =
        (0..32).map(|n| format!("FROM busybox AS s{n}\nRUN {} > /answer; sleep 0.3\n", ask())).collect();
    let copies: String = (0..32).map(|n| format!("COPY --from=s{n} /answer /{n}\n")).collect();
    let output = format!("type=local,dest={}", folder.path().join("out").display());
    world.built(folder.path(), &format!("{stages}FROM scratch\n{copies}"), &["-o", &output]);
    for n in 0..32 {
        let answer = std::fs::read_to_string(folder.path().join(format!("out/{n}"))).expect("it is there");
        assert_eq!(answer, "from 203.0.113.1\n", "{n}");
    }
    assert_nothing_is_left(&world);
}

#[test]
fn what_a_step_changes_in_its_network_no_other_sees() {
    let Some(world) = World::make("network::what_a_step_changes_in_its_network_no_other_sees") else {
        return;
    };
    let folder = folder();
    let look = "RUN ip addr show eth0 | grep -c 'inet ' > /seen; cat /seen; rm /seen\n";
    let dockerfile = format!(
        "FROM busybox\n{look}RUN ip addr add 192.0.2.7/32 dev eth0 && exit 1 || true\n\
         RUN --security=insecure ip addr add 192.0.2.8/32 dev eth0\n{look}"
    );
    let said = world.built(folder.path(), &dockerfile, &["--allow", "security.insecure"]);
    let seen: Vec<&str> = lines(&said).into_iter().filter(|line| line.len() == 1).collect();
    assert_eq!(seen, ["1", "1"], "{said}");
}

/// Sends packets as the root of a step can, who may open raw sockets: a right one, then one for each lie.
const LIES: &str = r#"
host = bytes.fromhex("026b696c6e01")
def say(source, to, text):
    is_6 = ":" in to
    a, b = (socket.inet_pton(socket.AF_INET6 if is_6 else socket.AF_INET, each) for each in (source, to))
    text = text.ljust(20).encode()
    if is_6:
        head = struct.pack("!IHBB", 6 << 28, 28, 17, 64) + a + b
        whole = sum16(a + b + struct.pack("!IHBB", 28, 0, 0, 17) + struct.pack("!HHHH", 9, 7001, 28, 0) + text)
        body = struct.pack("!HHHH", 9, 7001, 28, whole) + text
    else:
        head = struct.pack("!BBHHHBB", 0x45, 0, 48, 1, 0, 64, 17)
        head += struct.pack("!H", sum16(head + b"\0\0" + a + b)) + a + b
        body = struct.pack("!HHHH", 9, 7001, 28, 0) + text
    wire.send(host + host + (b"\x86\xdd" if is_6 else b"\x08\0") + head + body)
say("192.168.77.5", "203.0.113.1", "from elsewhere")
say(own[:own.rindex(".")] + ".77", "203.0.113.1", "from another step")
say(own, "127.0.0.1", "to loopback")
say("fe80::1", "2001:db8::1", "by IPv6")
say(own, "203.0.113.1", "honest")
"#;

#[test]
fn a_step_cannot_lie_about_its_address() {
    let Some(world) = World::make("network::a_step_cannot_lie_about_its_address") else { return };
    world.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
    let _server = world.server(
        "import socket, threading\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 7001))\n\
         def hear():\n\
         \x20   while True: open('/run/heard', 'ab').write(s.recv(100).strip() + b'\\n')\n\
         threading.Thread(target=hear, daemon=True).start()",
    );
    let folder = folder();
    let lie = || {
        let step = world.sh("pgrep -f '^sleep 60\\.75'");
        let lies = format!("{RAW_PACKETS}{LIES}");
        let lies = world.command("nsenter").args(["-t", step.trim(), "-n", "python3", "-c", &lies]).output();
        let lies = lies.expect("it is on the PATH");
        assert!(lies.status.success(), "{}", said(&lies));
        eventually("the host hears nothing", || world.sh("cat /run/heard || true").contains("honest"));
    };
    while_running(&world, folder.path(), "sleep 60.75", lie);
    assert_eq!(world.sh("cat /run/heard"), "honest\n");
}

/// Starts a build of one step, and ends it as no program can prevent when the step has written `running`.
fn kill_while_running(world: &World, folder: &Path, command: &str) {
    while_running(world, folder, command, || thread::sleep(Duration::from_millis(300)));
}

/// The same, when something has been done meanwhile.
fn while_running(world: &World, folder: &Path, command: &str, then: impl FnOnce()) {
    let dockerfile = format!("FROM busybox\nRUN echo running; {command}\n");
    let mut build = world.build(folder, &dockerfile, &[]);
    let mut child = build.stderr(Stdio::piped()).spawn().expect("the program was built");
    let mut stderr = child.stderr.take().expect("it is piped");
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while !heard.contains(" running\n") {
        let length = stderr.read(&mut buffer).expect("text");
        assert!(length > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(world.sh("ip -o link").contains("kiln") && world.tables().contains("kiln"), "{heard}");
    then();
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
}

#[test]
fn the_hosts_end_is_near_its_steps_and_leads_to_one_of_them() {
    let Some(world) = World::make("network::the_hosts_end_is_near_its_steps_and_leads_to_one_of_them") else {
        return;
    };
    let folder = folder();
    while_running(&world, folder.path(), "sleep 60", || {
        let addresses = world.sh("ip -4 -o addr | grep kiln");
        assert!(addresses.contains(".1/24 "), "{addresses}");
        let routes = world.sh("ip -4 route show | grep kiln");
        assert!(routes.lines().count() == 1 && !routes.contains("/24"), "{routes}");
    });
}

#[test]
fn nobody_speaks_to_a_step_first() {
    let Some(world) = World::make("network::nobody_speaks_to_a_step_first") else { return };
    let folder = folder();
    while_running(&world, folder.path(), "(nc -l -p 7777 < /dev/null &); sleep 60", || {
        thread::sleep(Duration::from_millis(500));
        let said = world.sh("step=$(ip -4 route show | grep kiln | cut -d' ' -f1); \
             timeout 5 bash -c \"exec 3<>/dev/tcp/$step/7777\" 2> /dev/null && echo open || echo closed: $?");
        // At once: it is refused, and not left without an answer.
        assert_eq!(said.trim(), "closed: 1");
    });
}

#[test]
fn a_name_server_that_answers_only_who_is_near_answers() {
    let test = "network::a_name_server_that_answers_only_who_is_near_answers";
    let Some(world) = World::make(test) else { return };
    if kiln_tests::machine::cannot(test, ["program:dnsmasq", "program:setpriv"]) {
        return;
    }
    let _server = world.server(
        "import subprocess, time\n\
         flags = '--keep-in-foreground --conf-file=/dev/null --pid-file --local-service --no-resolv --no-hosts --user=root'\n\
         flags += ' --address=/some.name/192.0.2.7'\n\
         # It would outlive who started it: with its user it forgets to die.\n\
         place = 'setpriv --pdeathsig KILL unshare --pid --fork --kill-child'.split()\n\
         subprocess.Popen(place + ['sh', '-c', 'dnsmasq ' + flags + '; true'], stdin=subprocess.DEVNULL)\n\
         while ':0035 ' not in open('/proc/net/udp').read(): time.sleep(0.01)",
    );
    world.sh("echo nameserver 203.0.113.1 > /run/resolv.conf");
    let folder = folder();
    let said =
        world.built(folder.path(), "FROM busybox\nRUN nslookup some.name | grep Address || true\n", &[]);
    let is_answer = |line: &&str| line.starts_with("Address") && line.ends_with("192.0.2.7");
    assert!(lines(&said).iter().any(is_answer), "{said}");
}

#[test]
fn nothing_is_left_of_a_build_that_was_killed() {
    let Some(world) = World::make("network::nothing_is_left_of_a_build_that_was_killed") else { return };
    let folder = folder();
    kill_while_running(&world, folder.path(), "sleep 60");
    assert_nothing_is_left(&world);
    // The kernel keeps a namespace whose connection waits for its end: the next build does not leave it there.
    kill_while_running(&world, folder.path(), &format!("sleep 60 | nc {INTERNET} 8000"));
    world.built(folder.path(), "FROM busybox\nRUN true\n", &[]);
    assert_nothing_is_left(&world);
}

/// The switches of the host's interfaces.
fn forwarding(world: &World) -> String {
    world.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/up0/forwarding | tr -d '\\n'")
}

#[test]
fn the_host_forwards_while_a_build_needs_it() {
    let Some(world) = World::make("network::the_host_forwards_while_a_build_needs_it") else { return };
    world.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    assert_eq!(forwarding(&world), "00");
    let (one, other) = (folder(), folder());
    let build = |folder: &Path, seconds: u32| {
        let dockerfile = format!("FROM busybox\nRUN {}; sleep {seconds}; {}\n", ask(), ask());
        let mut command = world.build(folder, &dockerfile, &[]);
        command.stderr(Stdio::piped()).spawn().expect("the program was built")
    };
    let short = build(one.path(), 1);
    eventually("the first does not switch it on", || forwarding(&world) == "01");
    let long = build(other.path(), 4);
    // The one that began ends first: the other still reaches the world.
    for child in [short, long] {
        let output = child.wait_with_output().expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(lines(&said(&output)).iter().filter(|line| **line == "from 203.0.113.1").count(), 2);
    }
    assert_eq!(forwarding(&world), "00");
    // One that is killed leaves it on, and the next one switches it off; unless somebody else wants it.
    for (then, expected) in [("true", "00"), ("echo 1 > /proc/sys/net/ipv4/ip_forward", "11")] {
        kill_while_running(&world, one.path(), "sleep 60");
        assert_nothing_is_left(&world);
        assert_eq!(forwarding(&world), "01");
        world.sh(then);
        world.built(other.path(), &format!("FROM busybox\nRUN {}\n", ask()), &[]);
        assert_eq!(forwarding(&world), expected, "{then}");
    }
}

/// What there may be of iptables, and how a chain of each is told of. The command that is advised is the first's own.
const IPTABLES: [(&str, &str, &str); 2] = [
    ("iptables-nft", "iptables", "chain FORWARD of table filter"),
    ("iptables-legacy", "iptables-legacy", "chain FORWARD of iptables-legacy"),
];

#[test]
fn a_firewall_that_drops_is_seen() {
    let test = "network::a_firewall_that_drops_is_seen";
    for (program, advised, chain) in IPTABLES {
        if kiln_tests::machine::cannot(test, [format!("program:{program}").as_str()]) {
            continue;
        }
        let Some(world) = World::make(test) else { return };
        let folder = folder();
        let dockerfile =
            format!("FROM busybox\nRUN ls /sys/class/net | tr '\\n' ' '; echo; {}\nRUN true\n", ask());
        world.hide_pasta();
        world.hide_stack();
        // Rules that let all through are no obstacle.
        world.sh(&format!("{program} -A FORWARD -j ACCEPT; {program} -D FORWARD -j ACCEPT"));
        let said = world.built(folder.path(), &dockerfile, &[]);
        assert!(!said.contains("WARN"), "{said}");
        world.sh(&format!("{program} -P FORWARD DROP"));
        let said = world.built(folder.path(), &dockerfile, &[]);
        let warning = format!(
            "RUN steps see the host's network, its loopback included: the host's firewall ({chain}) may drop the packets that \
             it forwards"
        );
        assert_eq!(said.matches(&warning).count(), 1, "{said}");
        assert!(lines(&said).contains(&"lo up0 ") && lines(&said).contains(&"from 203.0.113.1"), "{said}");
        // What the warning says helps.
        let allow =
            format!("{advised} -A FORWARD -i kiln+ -j ACCEPT && {advised} -A FORWARD -o kiln+ -j ACCEPT");
        assert!(
            said.contains(&format!("run `{allow}` to let them through, or install pasta (package passt)")),
            "{said}"
        );
        world.sh(&allow.replace(&format!("{advised} "), &format!("{program} ")));
        let said = world.built(folder.path(), &dockerfile, &[]);
        assert!(!said.contains("WARN"), "{said}");
        assert!(lines(&said).contains(&"eth0 lo ") && lines(&said).contains(&"from 203.0.113.1"), "{said}");
    }
}

#[test]
fn a_chain_that_leads_into_one_that_drops_is_seen() {
    let test = "network::a_chain_that_leads_into_one_that_drops_is_seen";
    for (program, advised, _) in IPTABLES {
        if kiln_tests::machine::cannot(test, [format!("program:{program}").as_str()]) {
            continue;
        }
        let Some(world) = World::make(test) else { return };
        world.hide_pasta();
        world.hide_stack();
        // A comment is a condition by its form alone.
        world.sh(&format!(
            "{program} -N closed; {program} -A closed -m comment --comment all -j DROP; {program} -A FORWARD -j closed"
        ));
        let folder = folder();
        let said = world.built(folder.path(), &format!("FROM busybox\nRUN {}\n", ask()), &[]);
        // Behind that chain nothing is reached.
        let allow =
            format!("{advised} -I FORWARD -i kiln+ -j ACCEPT && {advised} -I FORWARD -o kiln+ -j ACCEPT");
        assert!(said.contains(&allow) && lines(&said).contains(&"from 203.0.113.1"), "{said}");
        world.sh(&allow.replace(&format!("{advised} "), &format!("{program} ")));
        let said = world.built(folder.path(), &format!("FROM busybox\nRUN {}\n", ask()), &[]);
        assert!(!said.contains("WARN") && lines(&said).contains(&"from 203.0.113.1"), "{said}");
    }
}

#[test]
fn a_step_has_ipv6_where_the_host_forwards_it() {
    let test = "network::a_step_has_ipv6_where_the_host_forwards_it";
    let Some(world) = World::make(test) else { return };
    let folder = folder();
    let dockerfile = "FROM busybox\nRUN ip -6 addr show eth0 | grep -c 'inet6 fd'; echo hi | nc -w 5 2001:db8::9 8000; true\n";
    let said = world.built(folder.path(), dockerfile, &[]);
    assert!(lines(&said).contains(&"0"), "{said}");
    world.sh("ip -6 route add default via 2001:db8::9; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let said = world.built(folder.path(), dockerfile, &[]);
    assert!(lines(&said).contains(&"1") && lines(&said).contains(&"from 2001:db8::1"), "{said}");
    if kiln_tests::machine::cannot(test, ["program:ip6tables-nft"]) {
        return;
    }
    // What is dropped would be waited for, each time that a name has an address of either kind.
    world.sh("ip6tables-nft -P FORWARD DROP");
    let said = world.built(folder.path(), dockerfile, &[]);
    assert!(lines(&said).contains(&"0") && !said.contains("WARN"), "{said}");
}

#[test]
fn what_the_machine_cannot_do_is_said_once() {
    let test = "network::what_the_machine_cannot_do_is_said_once";
    let Some(world) = World::make(test) else { return };
    if kiln_tests::machine::cannot(test, ["program:setpriv"]) {
        return;
    }
    world.hide_pasta();
    let folder = folder();
    let dockerfile = format!("FROM busybox\nRUN {}\nRUN true\n", ask());
    let build = world.build(folder.path(), &dockerfile, &[]);
    // nsenter … -- KILN …: in place of Kiln, a program that starts it with fewer rights.
    let arguments: Vec<_> = build.get_args().skip(5).collect();
    let mut limited = world.command("setpriv");
    limited.args(["--bounding-set", "-net_admin", "--inh-caps", "-all"]).args(arguments);
    let output = limited.output().expect("it is on the PATH");
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("RUN steps see the host's network").count(), 1, "{said}");
    assert!(lines(&said).contains(&"from 203.0.113.1"), "{said}");
}

#[test]
fn a_loopback_name_server_and_proxy_are_told_of() {
    let Some(world) = World::make("network::a_loopback_name_server_and_proxy_are_told_of") else { return };
    world.sh("echo nameserver 127.0.0.1 > /run/resolv.conf");
    let folder = folder();
    let proxy = ["--build-arg", "http_proxy=http://user:secret@127.0.0.1:3128"];
    let said = world.built(folder.path(), "FROM busybox\nRUN cat /etc/resolv.conf\nRUN true\n", &proxy);
    assert!(lines(&said).contains(&"nameserver 8.8.8.8"), "{said}");
    for warning in
        ["do not reach the host's name server (127.0.0.1)", "do not reach the proxy at 127.0.0.1:3128,"]
    {
        assert_eq!(said.matches(warning).count(), 1, "{said}");
    }
    assert!(!said.contains("secret"), "{said}");
    world.sh(
        "mkdir -p /run/systemd/resolve; echo nameserver 203.0.113.9 > /run/systemd/resolve/resolv.conf; \
              echo nameserver 127.0.0.53 > /run/resolv.conf",
    );
    let said = world.built(folder.path(), "FROM busybox\nRUN cat /etc/resolv.conf\n", &[]);
    assert!(lines(&said).contains(&"nameserver 203.0.113.9") && !said.contains("WARN"), "{said}");
}
