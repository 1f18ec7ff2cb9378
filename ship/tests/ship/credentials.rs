//! A login by a credentials file: what nsc(1) hands out where an operator's server knows accounts and no users.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::nats::server;
use crate::segments::{Segments, assert_same, numbered};
use crate::shipper::{command, once};

/// A token (JWT) in which `issuer` says `claims` of `subject`.
fn token(issuer: &KeyPair, subject: &KeyPair, claims: Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let mut claims = claims;
    claims["version"] = json!(2);
    let body = json!({
        "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": claims,
    });
    let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encode(header), encode(body));
    let signature = issuer.sign(text.as_bytes()).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An account that may keep so many bytes in streams; the system's own may keep none.
fn account(operator: &KeyPair, account: &KeyPair, storage: i64) -> String {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
    });
    token(operator, account, json!({ "type": "account", "limits": limits }))
}

fn user(account: &KeyPair, user: &KeyPair) -> String {
    token(account, user, json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 }))
}

/// As nsc(1) writes it.
fn file(token: &str, user: &KeyPair) -> String {
    let seed = user.seed().expect("a seed");
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[test]
fn a_credentials_file() {
    let [operator, ours, system] =
        [KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account()];
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n {}: {}\n {}: {}\n}}",
        token(&operator, &operator, json!({ "type": "operator" })),
        system.public_key(),
        system.public_key(),
        account(&operator, &system, 0),
        ours.public_key(),
        account(&operator, &ours, -1),
    );
    let Some(server) = server(&config) else { return };
    let known = KeyPair::new_user();
    let known_token = user(&ours, &known);
    let mut client = server.client_signing(|nonce| {
        let signature = known.sign(nonce.as_bytes()).expect("a signature");
        json!({ "jwt": known_token, "sig": URL_SAFE_NO_PAD.encode(signature) })
    });
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 1000);
    let with = |text: String| {
        let path = dir.path().join(".creds");
        std::fs::write(&path, text).expect("write");
        let mut command = command(&segments.path, &server);
        command.arg("--creds").arg(path).args(["--patience", "2s"]);
        once(command)
    };
    // Of an account that nobody here knows, and a file that holds no credentials.
    let (stranger, theirs) = (KeyPair::new_user(), KeyPair::new_account());
    let (status, said) = with(file(&user(&theirs, &stranger), &stranger));
    assert_eq!(status, Some(125), "{said}");
    assert!(said.to_lowercase().contains("authorization violation"), "{said}");
    let seed = stranger.seed().expect("a seed");
    assert!(!said.contains(&seed), "no secret is shown: {said}");
    let (status, said) = with(format!("{seed}\n"));
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("read the credentials") && !said.contains(&seed), "{said}");
    assert_eq!(client.count(), 0);
    assert_eq!(with(file(&known_token, &known)), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 1000), "");
}
