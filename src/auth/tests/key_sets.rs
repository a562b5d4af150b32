//! What is accepted from an issuer that publishes its keys.

use std::time::Duration;

use chrono::TimeDelta;

use super::{
    jwks_server::{JwksServer, response},
    published::{MAX_DOCUMENT_BYTES, MAX_UNKNOWN_KEY_IDS, MIN_FETCH_INTERVAL, UNKNOWN_KEY_ID_MEMORY},
    signers::{ED25519, HMAC, OTHER_RSA, P256, P384, RSA},
    *,
};

const ALL: &str = r#"["RS256", "PS256", "ES256", "ES384", "EdDSA"]"#;

struct Setup {
    server: JwksServer,
    clock: Clock,
    authenticator: Authenticator,
}

async fn setup(keys: &[Value]) -> Setup {
    let server = JwksServer::start(keys).await;
    let clock = Clock::manual(now());
    // Only what a test asks for is fetched: its clock stands still, and no test takes an hour.
    let settings = format!("algorithms = {ALL}\njwks_url = \"{}\"\njwks_refresh = \"1h\"", server.url);
    let authenticator = authenticator(&config(&settings), &clock).await;
    Setup { server, clock, authenticator }
}

impl Setup {
    async fn authenticate(&self, signer: &Signer, algorithm: Algorithm, kid: Option<&str>) -> Result<(), AuthError> {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        let authorization = bearer(signer, &header, &claims_with(json!({ "exp": now().timestamp() + 86_400 })));
        self.authenticator.authenticate(Some(&authorization)).await.map(|_| ())
    }

    async fn rs256(&self, signer: &Signer, kid: &str) -> Result<(), AuthError> {
        self.authenticate(signer, Algorithm::RS256, Some(kid)).await
    }

    fn pass(&self, time: Duration) {
        self.clock.set(self.clock.now() + TimeDelta::from_std(time).unwrap());
    }
}

#[tokio::test]
async fn keys_of_every_type_verify_with_their_own_algorithms() {
    let setup = setup(&[RSA.jwk("rsa"), P256.jwk("p256"), P384.jwk("p384"), ED25519.jwk("ed")]).await;
    assert_eq!(setup.authenticator.ready(), Ok(()));
    for (signer, kid, algorithm) in [
        (&*RSA, "rsa", Algorithm::RS256),
        (&*RSA, "rsa", Algorithm::PS256),
        (&*P256, "p256", Algorithm::ES256),
        (&*P384, "p384", Algorithm::ES384),
        (&*ED25519, "ed", Algorithm::EdDSA),
    ] {
        assert_eq!(setup.authenticate(signer, algorithm, Some(kid)).await, Ok(()), "{algorithm:?}");
    }
    // Pinned for the issuer, but not what the named key is for.
    assert_eq!(setup.authenticate(&P256, Algorithm::ES256, Some("p384")).await, Err(AuthError::AlgorithmNotAllowed));
    assert_eq!(setup.authenticate(&RSA, Algorithm::RS256, Some("ed")).await, Err(AuthError::AlgorithmNotAllowed));
    // Of the right type, but not pinned.
    assert_eq!(setup.authenticate(&RSA, Algorithm::RS512, Some("rsa")).await, Err(AuthError::AlgorithmNotAllowed));
    assert_eq!(setup.rs256(&OTHER_RSA, "rsa").await, Err(AuthError::SignatureInvalid));
    assert_eq!(setup.server.requests(), 1);
}

#[tokio::test]
async fn keys_for_other_purposes_and_secrets_are_left_out() {
    let with = |name: &str, value: Value| {
        let mut jwk = RSA.jwk(name);
        jwk[name] = value;
        jwk
    };
    let mut other_algorithm = RSA.jwk("alg");
    other_algorithm["alg"] = json!("PS256");
    let mut short_coordinate = P256.jwk("short");
    short_coordinate["x"] = json!("AAAA");
    let mut off_curve = P256.jwk("off");
    off_curve["y"] = off_curve["x"].clone();
    let mut weak = RSA.jwk("weak");
    weak["n"] = json!("_".repeat(170));
    let setup = setup(&[
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("kty", json!("lattice")),
        other_algorithm,
        json!({ "kty": "oct", "kid": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA" }),
        short_coordinate,
        off_curve,
        weak,
        json!("not even an object"),
        RSA.jwk("good"),
    ])
    .await;
    assert_eq!(setup.rs256(&RSA, "good").await, Ok(()));
    assert_eq!(setup.rs256(&RSA, "alg").await, Err(AuthError::AlgorithmNotAllowed));
    assert_eq!(setup.authenticate(&RSA, Algorithm::PS256, Some("alg")).await, Ok(()));
    for kid in ["use", "key_ops", "kty", "oct", "weak"] {
        assert_eq!(setup.rs256(&RSA, kid).await, Err(AuthError::UnknownKey), "{kid}");
    }
    for kid in ["short", "off"] {
        assert_eq!(setup.authenticate(&P256, Algorithm::ES256, Some(kid)).await, Err(AuthError::UnknownKey), "{kid}");
    }
    assert_eq!(setup.authenticate(&HMAC, Algorithm::HS256, Some("oct")).await, Err(AuthError::AlgorithmNotAllowed));
}

#[tokio::test]
async fn a_token_without_key_id_needs_a_set_of_one() {
    let one = setup(&[RSA.jwk("a")]).await;
    assert_eq!(one.authenticate(&RSA, Algorithm::RS256, None).await, Ok(()));
    let two = setup(&[RSA.jwk("a"), P256.jwk("b")]).await;
    two.pass(MIN_FETCH_INTERVAL);
    assert_eq!(two.authenticate(&RSA, Algorithm::RS256, None).await, Err(AuthError::UnknownKey));
    assert_eq!(two.server.requests(), 1);
}

#[tokio::test]
async fn a_new_key_is_accepted_without_a_restart() {
    let setup = setup(&[RSA.jwk("old")]).await;
    assert_eq!(setup.rs256(&RSA, "old").await, Ok(()));
    setup.server.publish(&[OTHER_RSA.jwk("new")]);
    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&OTHER_RSA, "new").await, Ok(()));
    assert_eq!(setup.rs256(&RSA, "old").await, Err(AuthError::UnknownKey));
    assert_eq!(setup.server.requests(), 2);
}

#[tokio::test]
async fn a_token_that_was_accepted_ends_with_its_time_and_with_its_key() {
    let setup = setup(&[RSA.jwk("a")]).await;
    assert_eq!(setup.rs256(&RSA, "a").await, Ok(()));
    assert_eq!(setup.rs256(&RSA, "a").await, Ok(()));
    // Withdrawn: asking for the key that took its place makes the set come anew.
    setup.server.publish(&[OTHER_RSA.jwk("b")]);
    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&OTHER_RSA, "b").await, Ok(()));
    assert_eq!(setup.rs256(&RSA, "a").await, Err(AuthError::UnknownKey));
    setup.pass(Duration::from_hours(23));
    assert_eq!(setup.rs256(&OTHER_RSA, "b").await, Ok(()));
    // By then with the leeway too.
    setup.pass(Duration::from_hours(2));
    assert_eq!(setup.rs256(&OTHER_RSA, "b").await, Err(AuthError::Expired));
}

#[tokio::test]
async fn a_hundred_unknown_keys_at_once_cause_one_fetch() {
    let setup = setup(&[RSA.jwk("old")]).await;
    setup.server.publish(&[RSA.jwk("old"), OTHER_RSA.jwk("new")]);
    setup.pass(MIN_FETCH_INTERVAL);
    let kids: Vec<_> = (0..100).map(|index| format!("made-up-{index}")).collect();
    let made_up = join_all(kids.iter().map(|kid| setup.rs256(&RSA, kid)));
    let (made_up, new) = tokio::join!(made_up, setup.rs256(&OTHER_RSA, "new"));
    assert!(made_up.iter().all(|result| *result == Err(AuthError::UnknownKey)));
    assert_eq!(new, Ok(()));
    assert_eq!(setup.server.requests(), 2);
}

#[tokio::test]
async fn fetches_keep_their_distance() {
    let setup = setup(&[RSA.jwk("old")]).await;
    setup.server.publish(&[OTHER_RSA.jwk("new")]);
    let instant = Duration::from_millis(1);
    setup.pass(MIN_FETCH_INTERVAL.saturating_sub(instant));
    assert_eq!(setup.rs256(&OTHER_RSA, "new").await, Err(AuthError::UnknownKey));
    assert_eq!(setup.server.requests(), 1);
    setup.pass(instant);
    assert_eq!(setup.rs256(&OTHER_RSA, "new").await, Ok(()));
    assert_eq!(setup.server.requests(), 2);
    // A clock that is set back must not stop fetching.
    setup.server.publish(&[RSA.jwk("newest")]);
    setup.clock.set(now() - TimeDelta::hours(1));
    assert_eq!(setup.rs256(&RSA, "newest").await, Ok(()));
}

#[tokio::test]
async fn unknown_keys_are_not_asked_for_again_and_again() {
    let setup = setup(&[RSA.jwk("old")]).await;
    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&RSA, "gone").await, Err(AuthError::UnknownKey));
    assert_eq!(setup.server.requests(), 2);
    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&RSA, "gone").await, Err(AuthError::UnknownKey));
    assert_eq!(setup.server.requests(), 2);
    assert_eq!(setup.rs256(&RSA, &"x".repeat(257)).await, Err(AuthError::UnknownKey));
    assert_eq!(setup.server.requests(), 2);
    // Another key's fetch brings the one that was refused, too.
    setup.server.publish(&[RSA.jwk("gone"), OTHER_RSA.jwk("other")]);
    assert_eq!(setup.rs256(&OTHER_RSA, "other").await, Ok(()));
    assert_eq!(setup.rs256(&RSA, "gone").await, Ok(()));
    assert_eq!(setup.server.requests(), 3);

    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&RSA, "late").await, Err(AuthError::UnknownKey));
    setup.server.publish(&[RSA.jwk("late")]);
    setup.pass(UNKNOWN_KEY_ID_MEMORY);
    assert_eq!(setup.rs256(&RSA, "late").await, Ok(()));
}

#[tokio::test]
async fn unknown_keys_cannot_fill_the_memory() {
    let server = JwksServer::start(&[RSA.jwk("old")]).await;
    let clock = Clock::manual(now());
    let url = Url::parse(&server.url).unwrap();
    let hour = Duration::from_hours(1);
    let algorithms = vec![Algorithm::RS256];
    let keys =
        PublishedKeys::start(ISSUER.to_owned(), url, algorithms, hour, clock.clone(), &Handle::current()).unwrap();
    keys.first_fetch().await;
    for _ in 0..2 {
        clock.set(clock.now() + TimeDelta::from_std(UNKNOWN_KEY_ID_MEMORY).unwrap());
        let kids: Vec<_> = (0..MAX_UNKNOWN_KEY_IDS + 10).map(|index| index.to_string()).collect();
        join_all(kids.iter().map(|kid| keys.key(Some(kid), Algorithm::RS256))).await;
        assert_eq!(keys.unknown_key_ids(), MAX_UNKNOWN_KEY_IDS);
    }
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn the_last_good_keys_stay_in_use_whatever_the_issuer_answers() {
    let setup = setup(&[RSA.jwk("good")]).await;
    let with_two_keys = json!({ "keys": [RSA.jwk("good"), OTHER_RSA.jwk("new")] }).to_string();
    let stranger = JwksServer::start(&[OTHER_RSA.jwk("new")]).await;
    for (index, answer) in [
        response("500 Internal Server Error", "", &with_two_keys),
        response("404 Not Found", "", ""),
        response("302 Found", &format!("location: {}\r\n", stranger.url), ""),
        response("200 OK", "", "<html>"),
        response("200 OK", "", "{}"),
        response("200 OK", "", r#"{"keys":[]}"#),
        response("200 OK", "", &format!("{with_two_keys}{}", " ".repeat(MAX_DOCUMENT_BYTES))),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        setup.server.answer_with(answer.clone());
        setup.pass(MIN_FETCH_INTERVAL);
        let shown: String = answer.chars().take(60).collect();
        assert_eq!(setup.rs256(&OTHER_RSA, "new").await, Err(AuthError::KeysUnavailable), "{shown}");
        assert_eq!(setup.rs256(&RSA, "good").await, Ok(()), "{shown}");
        assert_eq!(setup.server.requests(), index + 2, "{shown}");
    }
    assert_eq!(stranger.requests(), 0);
    assert_eq!(setup.authenticator.ready(), Ok(()));

    // What could not be found while the issuer was down is not remembered as unknown.
    setup.server.publish(&[OTHER_RSA.jwk("new")]);
    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&OTHER_RSA, "new").await, Ok(()));
}

#[tokio::test]
async fn an_issuer_that_is_down_at_start_is_waited_for() {
    let server = JwksServer::start(&[]).await;
    server.answer_with(response("503 Service Unavailable", "", ""));
    let clock = Clock::manual(now());
    let settings = format!("algorithms = {ALL}\njwks_url = \"{}\"", server.url);
    let authenticator = authenticator(&config(&settings), &clock).await;
    let setup = Setup { server, clock, authenticator };
    assert_eq!(setup.authenticator.ready(), Err(format!("the keys of issuer {ISSUER} have not been fetched")));
    assert_eq!(setup.rs256(&RSA, "good").await, Err(AuthError::KeysUnavailable));
    assert_eq!(setup.authenticate(&RSA, Algorithm::RS256, None).await, Err(AuthError::KeysUnavailable));
    assert_eq!(setup.server.requests(), 1);

    setup.server.publish(&[RSA.jwk("good")]);
    setup.pass(MIN_FETCH_INTERVAL);
    assert_eq!(setup.rs256(&RSA, "good").await, Ok(()));
    assert_eq!(setup.authenticator.ready(), Ok(()));
}

fn start(server: &JwksServer, refresh: Duration) -> PublishedKeys {
    let url = Url::parse(&server.url).unwrap();
    let algorithms = vec![Algorithm::RS256];
    PublishedKeys::start(ISSUER.to_owned(), url, algorithms, refresh, Clock::manual(now()), &Handle::current()).unwrap()
}

#[tokio::test]
async fn keys_are_fetched_again_in_time_until_nobody_needs_them() {
    let server = JwksServer::start(&[RSA.jwk("old")]).await;
    let keys = start(&server, Duration::from_millis(1));
    keys.first_fetch().await;
    server.publish(&[OTHER_RSA.jwk("new")]);
    // The third request begins after the second was answered with the new key.
    server.wait_for_requests(server.requests() + 3).await;
    assert!(keys.key(Some("new"), Algorithm::RS256).await.is_ok());

    let mut finished = keys.finished();
    drop(keys);
    let ended = async { while finished.changed().await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok(), "it still fetches");
}

#[tokio::test]
async fn requests_do_not_hang_when_the_fetching_has_ended() {
    let server = JwksServer::start(&[RSA.jwk("old")]).await;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let clock = Clock::manual(now());
    let url = Url::parse(&server.url).unwrap();
    let hour = Duration::from_hours(1);
    let keys =
        PublishedKeys::start(ISSUER.to_owned(), url, vec![Algorithm::RS256], hour, clock.clone(), runtime.handle())
            .unwrap();
    keys.first_fetch().await;
    runtime.shutdown_background();
    let mut finished = keys.finished();
    while finished.changed().await.is_ok() {}
    clock.set(now() + TimeDelta::from_std(MIN_FETCH_INTERVAL).unwrap());
    assert!(matches!(keys.key(Some("new"), Algorithm::RS256).await, Err(AuthError::KeysUnavailable)));
    assert!(keys.key(Some("old"), Algorithm::RS256).await.is_ok());
}
