//! Keys as people have them, used by OpenSSH's own programs: `ssh-keygen -Y` has a file signed by the agent, and verifies it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use ssh::{BadKey, FAILURE, Key, Keyring, read_message, write_message};

fn cannot(test: &str) -> bool {
    let lacks = ["ssh-keygen", "ssh-add", "openssl"].into_iter().find(|program| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    if let Some(program) = lacks {
        println!("SKIP {test}: no {program} on the PATH");
    }
    lacks.is_some()
}

fn run(folder: &Path, words: &str) -> String {
    let mut words = words.split(' ').map(|word| if word == "NOTHING" { "" } else { word });
    let mut command = Command::new(words.next().expect("a program"));
    let output = command.args(words).current_dir(folder).output().expect("it is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// An agent with these keys that ends with the test.
fn listen(at: &Path, keys: Keyring) {
    let listener = UnixListener::bind(at).expect("a new socket");
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            while let Some(request) = read_message(&mut client).expect("whole messages") {
                write_message(&mut client, &keys.answer(&request)).expect("it listens");
            }
        }
    });
}

fn add(agent: &Path, words: &[&OsStr]) -> (bool, String) {
    let output =
        Command::new("ssh-add").args(words).env("SSH_AUTH_SOCK", agent).output().expect("it is there");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs `ssh-keygen` with an agent; what it reads is the file `data`.
fn keygen(agent: &Path, words: &[&str], folder: &Path) {
    let mut command = Command::new("ssh-keygen");
    let data = fs::File::open(folder.join("data")).expect("it was written");
    command.args(words).current_dir(folder).env("SSH_AUTH_SOCK", agent).stdin(data);
    let output = command.output().expect("it is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn openssh_takes_the_signatures_of_every_kind_and_form() {
    if cannot("openssh_takes_the_signatures_of_every_kind_and_form") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for words in [
        "ssh-keygen -q -t ed25519 -N NOTHING -f ed25519",
        "ssh-keygen -q -t rsa -b 2048 -N NOTHING -f rsa2048",
        "ssh-keygen -q -t rsa -b 4096 -N NOTHING -f rsa4096",
        "ssh-keygen -q -t ecdsa -b 256 -N NOTHING -f p256",
        "ssh-keygen -q -t ecdsa -b 384 -N NOTHING -f p384",
        "ssh-keygen -q -t ecdsa -b 521 -N NOTHING -f p521",
        "ssh-keygen -q -t rsa -m PEM -N NOTHING -f pkcs1",
        "ssh-keygen -q -t ecdsa -m PEM -N NOTHING -f sec1",
        "ssh-keygen -q -t rsa -m PKCS8 -N NOTHING -f pkcs8rsa",
        "ssh-keygen -q -t ecdsa -m PKCS8 -N NOTHING -f pkcs8p256",
        "openssl genpkey -algorithm ed25519 -out pkcs8ed25519",
    ] {
        run(at, words);
    }
    let mut names: Vec<String> = fs::read_dir(at)
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("text"))
        .filter(|name| !name.ends_with(".pub"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 11);
    let key = |name: &String| {
        let bytes = fs::read(at.join(name)).expect("it was made");
        Key::parse(&bytes, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let agent = at.join("agent");
    listen(&agent, Keyring::new(names.iter().map(key).collect()));
    let (listed, public) = add(&agent, &["-L".as_ref()]);
    assert!(listed, "{public}");
    assert_eq!(public.lines().count(), names.len(), "{public}");
    for (name, line) in names.iter().zip(public.lines()) {
        let half = at.join(format!("{name}.pub"));
        if let Ok(own) = fs::read_to_string(&half) {
            assert_eq!(
                own.split(' ').take(2).collect::<Vec<_>>(),
                line.split(' ').take(2).collect::<Vec<_>>()
            );
        } else {
            fs::write(&half, line).expect("written");
        }
        fs::write(at.join("data"), name).expect("written");
        let _none_yet = fs::remove_file(at.join("data.sig"));
        keygen(&agent, &["-Y", "sign", "-n", "test", "-f", &half.display().to_string(), "data"], at);
        keygen(&agent, &["-Y", "check-novalidate", "-n", "test", "-s", "data.sig"], at);
    }
    assert!(!add(&agent, &["-D".as_ref()]).0);
    assert!(!add(&agent, &["-x".as_ref()]).0);
    assert!(!add(&agent, &[at.join("ed25519").as_os_str()]).0);
}

#[test]
fn what_is_no_key_that_can_be_used_says_why() {
    if cannot("what_is_no_key_that_can_be_used_says_why") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for words in [
        "ssh-keygen -q -t ed25519 -N passphrase -f locked",
        "ssh-keygen -q -t rsa -m PEM -N passphrase -f locked-pkcs1",
        "ssh-keygen -q -t rsa -m PKCS8 -N passphrase -f locked-pkcs8",
        "openssl genpkey -algorithm x25519 -out x25519",
        "openssl genrsa -traditional -out short 1024",
        "ssh-keygen -q -t rsa -b 1024 -N NOTHING -f short-openssh",
    ] {
        run(at, words);
    }
    let parse = |name: &str| Key::parse(&fs::read(at.join(name)).expect("it was made"), name).map(drop);
    for name in ["locked", "locked-pkcs1", "locked-pkcs8"] {
        assert_eq!(parse(name), Err(BadKey::Encrypted), "{name}");
    }
    assert_eq!(parse("locked.pub"), Err(BadKey::Public));
    assert!(matches!(parse("x25519"), Err(BadKey::Kind(_))));
    for name in ["short", "short-openssh"] {
        assert_eq!(parse(name), Err(BadKey::Kind("RSA of 1024 bits".to_owned())), "{name}");
    }
    for text in ["", "hello", "-----BEGIN ", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        assert_eq!(Key::parse(text.as_bytes(), "").map(drop), Err(BadKey::NoKey), "{text}");
    }
    assert_eq!(Key::parse(&[0xff, 0xfe], "").map(drop), Err(BadKey::NoKey));
}

#[test]
fn a_damaged_key_is_an_error_wherever_it_is_cut_or_changed() {
    if cannot("a_damaged_key_is_an_error_wherever_it_is_cut_or_changed") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    run(folder.path(), "ssh-keygen -q -t rsa -b 2048 -N NOTHING -f key");
    let text = fs::read_to_string(folder.path().join("key")).expect("it was made");
    let end = text.find("-----END").expect("it has an end");
    for length in (0..=end).step_by(7) {
        assert!(Key::parse(&text.as_bytes()[..length], "").is_err(), "{length}");
    }
    for at in (36..text.len() - 40).step_by(11) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        // It may be the comment: then it is a key still. It never panics.
        let _any = Key::parse(&bytes, "");
    }
}

/// A file in OpenSSH's form with an RSA key of these numbers.
fn rsa_of(numbers: [&[u8]; 6]) -> String {
    let strings = |parts: &[&[u8]]| -> Vec<u8> {
        parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes(), *part].concat()).collect()
    };
    let secret = [&[0; 8], strings(&[b"ssh-rsa"]).as_slice(), &strings(&numbers)].concat();
    let header = [b"openssh-key-v1\0", strings(&[b"none", b"none", b""]).as_slice(), &[0, 0, 0, 1]].concat();
    let all = STANDARD.encode([header, strings(&[b"", &secret])].concat());
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{all}\n-----END OPENSSH PRIVATE KEY-----\n")
}

#[test]
fn numbers_of_any_length_are_refused_at_once() {
    let (long, short, one) = (vec![0xff; 50_000], vec![0xff; 256], vec![1]);
    let started = Instant::now();
    for (numbers, why) in [
        ([&long, &one, &long, &long, &long, &long], BadKey::Kind("RSA of 400000 bits".to_owned())),
        ([&short, &one, &long, &one, &long, &one], BadKey::Damaged),
        ([&short, &one, &short, &one, &one, &long], BadKey::Damaged),
        ([&short, &one, &short, &short, &short, &short], BadKey::Damaged),
    ] {
        let key = rsa_of(numbers.map(Vec::as_slice));
        assert_eq!(Key::parse(key.as_bytes(), "").map(drop), Err(why));
    }
    assert_eq!(
        Key::parse(rsa_of([&[]; 6]).as_bytes(), "").map(drop),
        Err(BadKey::Kind("RSA of 0 bits".to_owned()))
    );
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn requests_that_make_no_sense_fail() {
    let nobody = Keyring::default();
    assert_eq!(nobody.answer(&[11]), [12, 0, 0, 0, 0]);
    for request in
        [&[][..], &[0], &[11, 0], &[13], &[13, 0, 0, 0, 9, 1], &[17, 1], &[19], &[22], &[27], &[255]]
    {
        assert_eq!(nobody.answer(request), FAILURE, "{request:?}");
    }
}
