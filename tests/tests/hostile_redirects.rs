//! Where an answer leads elsewhere: a login goes to the host that it is for, and to no other.

use std::fs;

use kiln_tests::{
    hostile::{
        Answer, Asked, Hostile,
        image::{Content, Layer, MANIFEST},
        place::{Ended, Place},
    },
    machine,
};

/// Says why a test cannot run here, and whether.
fn cannot(test: &str, needs: &[&str]) -> bool {
    machine::cannot(test, ["steps"].iter().chain(needs).copied())
}

const PULL: &str = "pull --progress plain IMAGE";

/// `ada:hunter2`, as a config file and a header have it.
const LOGIN: &str = "YWRhOmh1bnRlcjI=";

/// A place with a login for its registry.
fn place() -> Place {
    let mut place = Place::new();
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{LOGIN}\"}}}}}}\n", place.registry.host());
    fs::write(place.path("docker/config.json"), config).expect("written");
    place.settle();
    place
}

fn honest() -> Content {
    Content::of(vec![Layer::honest()])
}

/// What an honest registry that wants this login answers.
fn wants_login(asked: &Asked) -> Option<Answer> {
    match asked.headers.get("authorization") {
        Some(sent) if sent == &format!("Basic {LOGIN}") => honest().answer(asked),
        _ => Some(Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\"")),
    }
}

/// Whether nobody was told the login, nor a token made of it.
fn knows_nothing(bait: &Hostile, case: &str) {
    for asked in bait.seen() {
        let told = asked.headers.get("authorization");
        assert!(told.is_none(), "{case}: {asked:?} carries {told:?}");
        assert!(!asked.target.contains("hunter2") && !asked.target.contains(LOGIN), "{case}: {asked:?}");
    }
}

fn silent_about_login(ended: &Ended) {
    for said in [&ended.stdout, &ended.stderr] {
        assert!(!said.contains("hunter2") && !said.contains(LOGIN), "{ended:#?}");
    }
}

#[test]
fn a_login_stays_with_its_host() {
    if cannot("hostile_redirects::a_login_stays_with_its_host", &[]) {
        return;
    }
    type Leads = fn(&Asked) -> bool;
    let cases: [(&str, u16, Leads); 4] = [
        ("manifests", 307, |asked| asked.target.contains("/manifests/")),
        ("blobs", 307, |asked| asked.target.contains("/blobs/")),
        ("manifests for good", 301, |asked| asked.target.contains("/manifests/")),
        ("all", 302, |_| true),
    ];
    for (case, status, leads) in cases {
        let (place, bait) = (place(), Hostile::start().expect("a free port"));
        bait.answer_with(|asked| honest().answer(asked));
        let elsewhere = bait.host();
        place.registry.answer_with(move |asked| {
            let answer = wants_login(asked)?;
            let away =
                || Answer::new(status, "").with("location", format!("http://{elsewhere}{}", asked.target));
            Some(if answer.status == 200 && leads(asked) { away() } else { answer })
        });
        let ended = place.kiln(PULL);
        place.harmless(case, &ended);
        assert_eq!(
            ended.status,
            Some(0),
            "{case}: a redirect without a login is what storage services do: {ended:#?}"
        );
        assert!(!bait.seen().is_empty(), "{case}: nobody was led away");
        knows_nothing(&bait, case);
        silent_about_login(&ended);
        // What the other host says about a login is not believed to be the registry's.
        let elsewhere = bait.host();
        bait.answer_with(move |_| {
            let realm = format!("Bearer realm=\"http://{elsewhere}/token\",service=\"x\"");
            Some(Answer::new(401, "").with("www-authenticate", realm))
        });
        let other = place.kiln("pull --progress plain --platform linux/s390x IMAGE");
        place.harmless(case, &other);
        knows_nothing(&bait, case);
        assert!(
            bait.seen().iter().all(|asked| !asked.target.starts_with("/token")),
            "{case}: {:?}",
            bait.seen()
        );
    }
}

#[test]
fn uploads_are_not_led_away_with_a_login() {
    if cannot("hostile_redirects::uploads_are_not_led_away_with_a_login", &["busybox"]) {
        return;
    }
    let mut place = place();
    let base = machine::base_argument().expect("the test asked for it");
    fs::write(place.path("context/Dockerfile"), "FROM busybox\n").expect("written");
    place.settle();
    let built = place.kiln(&format!("build -q --build-context {base} -t IMAGE PLACE/context"));
    assert_eq!(built.status, Some(0), "{built:#?}");
    let bait = Hostile::start().expect("a free port");
    bait.answer_with(|_| Some(Answer::new(201, "")));
    type Location = fn(&str) -> String;
    let cases: [(&str, Location, bool); 4] = [
        ("another host", |bait| format!("http://{bait}/upload"), true),
        ("another host, without its scheme", |bait| format!("//{bait}/upload"), true),
        ("a file", |_| "file:///etc/passwd".to_owned(), false),
        ("no address", |_| "http://[".to_owned(), false),
    ];
    for (case, location, goes) in cases {
        let to = location(&bait.host());
        place.registry.answer_with(move |asked| {
            let sent = asked.headers.get("authorization").is_some_and(|sent| sent.ends_with(LOGIN));
            Some(match asked.method.as_str() {
                _ if !sent => Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
                "HEAD" => Answer::new(404, ""),
                "POST" => Answer::new(202, "").with("location", to.clone()),
                _ => Answer::new(201, ""),
            })
        });
        let ended = place.kiln("push --progress plain IMAGE");
        place.harmless(case, &ended);
        silent_about_login(&ended);
        assert_eq!(ended.status, Some(if goes { 0 } else { 1 }), "{case}: {ended:#?}");
        if !goes {
            assert!(ended.stderr.contains("redirects to"), "{case}: {ended:#?}");
        }
        knows_nothing(&bait, case);
    }
    assert!(!bait.seen().is_empty());
}

#[test]
fn redirects_that_lead_nowhere() {
    if cannot("hostile_redirects::redirects_that_lead_nowhere", &[]) {
        return;
    }
    type Location = fn(&Asked) -> String;
    let cases: [(&str, Location, &str); 6] = [
        ("a loop", |asked| asked.target.clone(), "too many other redirects"),
        ("a chain without an end", |asked| format!("{}x", asked.target), "too many other redirects"),
        ("a file", |_| "file:///etc/passwd".to_owned(), "neither HTTP nor HTTPS"),
        ("another protocol", |_| "gopher://127.0.0.1/".to_owned(), "neither HTTP nor HTTPS"),
        ("nothing", |_| String::new(), "no address"),
        ("no address", |_| "http://[::".to_owned(), "no address"),
    ];
    let place = place();
    for (case, location, says) in cases {
        place.registry.answer_with(move |asked| Some(Answer::new(302, "").with("location", location(asked))));
        place.refuses(case, PULL, &[says]);
    }
    assert!(place.registry.seen().len() < 200, "{} questions", place.registry.seen().len());
}

#[test]
fn challenges_that_mean_something_else() {
    if cannot("hostile_redirects::challenges_that_mean_something_else", &[]) {
        return;
    }
    let place = place();
    let bait = Hostile::start().expect("a free port");
    let long = format!("Bearer realm=\"{}\"", "x".repeat(100_000));
    for (case, challenge, says) in [
        ("garbage", "\u{1}\u{2}=,,,=\"", &["login", "connection"][..]),
        ("an open quote", "Bearer realm=\"http://x", &["login"]),
        ("no realm", "Bearer service=\"x\"", &["login"]),
        ("a scheme that nobody knows", "Negotiate abc", &["login"]),
        ("a realm that is a file", "Bearer realm=\"file:///etc/passwd\"", &["neither HTTP nor HTTPS"]),
        ("a realm that is no address", "Bearer realm=\"::\"", &["no address"]),
        ("a realm of 100 kB", &long, &["no address", "connection"]),
        ("nothing", "", &["login"]),
    ] {
        let challenge = challenge.to_owned();
        place
            .registry
            .answer_with(move |_| Some(Answer::new(401, "").with("www-authenticate", challenge.clone())));
        let ended = place.refuses(case, PULL, says);
        silent_about_login(&ended);
    }
    // A token that would end the header and begin another.
    for (case, token) in
        [("a token with a new line", "a\\r\\nx-evil: 1"), ("no token", ""), ("a token of null", "\\u0000")]
    {
        let answer = format!("{{\"token\":\"{token}\"}}");
        place.registry.answer_with(move |asked| {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"x\"", asked.headers["host"]);
            Some(match asked.target.starts_with("/token") {
                true => Answer::new(200, answer.clone()),
                false => Answer::new(401, "").with("www-authenticate", realm),
            })
        });
        place.refuses(case, PULL, &["token"]);
    }
    assert!(bait.seen().is_empty());
}

#[test]
fn a_wrong_content_type_changes_nothing() {
    if cannot("hostile_redirects::a_wrong_content_type_changes_nothing", &[]) {
        return;
    }
    let place = Place::new();
    for media_type in ["text/html", "application/json; charset=utf-8", "application/octet-stream", ""] {
        let media_type = media_type.to_owned();
        place.registry.answer_with(move |asked| {
            let answer = honest().answer(asked)?;
            Some(Answer { headers: Vec::new(), ..answer }.typed(&media_type))
        });
        let ended = place.kiln(PULL);
        place.harmless("a careless server", &ended);
        assert_eq!(ended.status, Some(0), "{ended:#?}");
    }
    // A type that says something else is no carelessness.
    place.registry.answer_with(|asked| {
        Some(
            Answer { headers: Vec::new(), ..honest().answer(asked)? }
                .typed(&MANIFEST.replace("manifest", "index")),
        )
    });
    let other = place.kiln("pull --progress plain IMAGE");
    assert!(other.status == Some(1) && other.stderr.contains("announced as"), "{other:#?}");
}
