//! Pushing to a registry on loopback, and pulling back: what travels, who hears a login, and what a bad day costs.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use mlrails::digest::Digest;
use mlrails::http::{Client, Options};
use mlrails::oci::image::{Config, History};
use mlrails::oci::{Image, Index, Layer, LayerBytes, LayerType, Publishable, Reference};
use mlrails::registry::{Keychain, Known, Pushed, Registry, RegistryError, Who};
use mlrails::reporter::{Reporter, Silent, TaskId, Unit};
use mlrails::store::Store;

use crate::support::registry::{Act, Answer, Asked, Door, Place, Server, Settings};

pub const MIB: usize = 1 << 20;

/// Bytes that nothing compresses and no two layers share.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub fn layer(seed: u64, length: usize) -> Layer {
    let bytes = noise(seed, length);
    Layer {
        media_type: LayerType::Tar,
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        diff_id: Digest::of(&bytes),
        created_by: format!("layer {seed}"),
        annotations: Default::default(),
        bytes: LayerBytes::Memory(bytes),
    }
}

fn image_for(platform: &str, layers: Vec<Layer>) -> Image {
    let line = History {
        created: jiff::Timestamp::UNIX_EPOCH,
        created_by: "a layer".to_owned(),
        empty: false,
    };
    let config = Config {
        created: jiff::Timestamp::UNIX_EPOCH,
        environment: Vec::new(),
        entrypoint: vec!["/hello".to_owned()],
        command: Vec::new(),
        user: "65532".to_owned(),
        folder: "/".to_owned(),
        ports: vec![8080],
        stop_signal: "SIGTERM".to_owned(),
        labels: Default::default(),
        history: vec![line; layers.len()],
    };
    Image::new(platform.parse().unwrap(), layers, &config).unwrap()
}

/// One platform's image of these layers.
pub fn image(layers: Vec<Layer>) -> Publishable {
    Publishable::Image(image_for("linux/amd64", layers))
}

/// A client, its logins and its store.
pub struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    registry: Registry,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_logins(&[])
    }

    /// `logins` are hosts with their `user:password`.
    fn with_logins(logins: &[(&str, &str)]) -> Self {
        use base64::Engine as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let encoded = |login: &str| base64::engine::general_purpose::STANDARD.encode(login);
        let auths: serde_json::Map<_, _> = logins
            .iter()
            .map(|(host, login)| ((*host).to_owned(), serde_json::json!({ "auth": encoded(login) })))
            .collect();
        std::fs::write(&file, serde_json::json!({ "auths": auths }).to_string()).unwrap();
        let client = Client::new(Options {
            pause: Duration::ZERO,
            stall: Duration::from_secs(20),
            ..Options::default()
        });
        Self {
            store: Store::open(&folder.path().join("store")).unwrap(),
            registry: Registry::new(client, Keychain::from_files(vec![file])),
            folder,
        }
    }

    fn wait<F: Future>(work: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work)
    }

    fn push(&self, server: &Server, image: &Publishable) -> Result<Pushed, RegistryError> {
        self.push_to(&format!("{}/churn", server.host), image)
    }

    pub fn push_to(&self, repository: &str, image: &Publishable) -> Result<Pushed, RegistryError> {
        let target = repository.parse().unwrap();
        Self::wait(
            self.registry
                .push(&target, &["1"], image, &Known::default(), &self.store, &Silent),
        )
    }

    fn pull(&self, server: &Server, name: &str) -> Result<Publishable, RegistryError> {
        self.pull_from(&format!("{}/{name}", server.host))
    }

    pub fn pull_from(&self, name: &str) -> Result<Publishable, RegistryError> {
        Self::wait(self.registry.images(&name.parse().unwrap()))
    }

    pub fn bytes(&self, layer: &Layer) -> Result<Vec<u8>, RegistryError> {
        let path = Self::wait(self.registry.layer(layer, &self.store, &Silent))?;
        Ok(std::fs::read(path).unwrap())
    }
}

fn reference(server: &Server, name: &str) -> Reference {
    format!("{}/{name}", server.host).parse().unwrap()
}

/// Whether the registry has all of `image` under `churn:1`, byte for byte.
#[track_caller]
fn assert_there(server: &Server, image: &Publishable) {
    assert_eq!(
        server.manifest("churn", "1").as_deref(),
        Some(&image.manifest()[..])
    );
    for layer in image.layers() {
        let LayerBytes::Memory(bytes) = &layer.bytes else {
            panic!("a layer of a test")
        };
        assert_eq!(server.blob("churn", layer.digest).as_deref(), Some(&bytes[..]));
    }
}

fn count(asked: &[Asked], method: &str, part: &str) -> usize {
    asked
        .iter()
        .filter(|asked| asked.method == method && asked.path.contains(part))
        .count()
}

/// Bytes of request bodies that the registry took.
fn taken(asked: &[Asked]) -> usize {
    asked.iter().map(|asked| asked.read).sum()
}

#[test]
fn what_is_pushed_is_pulled_back() {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let image = image(vec![layer(1, 3 * MIB), layer(2, 17), layer(3, 1)]);
    let pushed = bench.push(&server, &image).unwrap();
    assert_eq!(
        (pushed.sent_layers, pushed.reused_layers, pushed.reused),
        (3, 0, 0)
    );
    assert_there(&server, &image);
    let by_digest = server.manifest("churn", &image.digest().to_string());
    assert_eq!(by_digest.as_deref(), Some(&image.manifest()[..]));

    let pulled = bench.pull(&server, "churn:1").unwrap();
    assert_eq!(pulled.manifest(), image.manifest());
    assert_eq!(pulled.images()[0].config, image.images()[0].config);
    for (pulled, made) in pulled.layers().into_iter().zip(image.layers()) {
        let LayerBytes::Memory(bytes) = &made.bytes else {
            panic!("a layer of a test")
        };
        assert_eq!(bench.bytes(pulled).unwrap(), bytes[..]);
    }
}

#[test]
fn a_second_push_sends_nothing_and_a_changed_layer_travels_alone() {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let base = layer(1, 2 * MIB);
    let first = image(vec![base.clone(), layer(2, 100)]);
    bench.push(&server, &first).unwrap();
    server.asked();
    let again = bench.push(&server, &first).unwrap();
    assert_eq!((again.sent, again.reused_layers), (0, 2));
    let asked = server.asked();
    assert_eq!(taken(&asked), 0, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|asked| asked.method == "HEAD" || asked.path == "/v2/"),
        "{asked:?}"
    );

    let second = image(vec![base, layer(3, 100)]);
    let pushed = bench.push(&server, &second).unwrap();
    assert_eq!((pushed.sent_layers, pushed.reused_layers), (1, 1));
    assert!(taken(&server.asked()) < 10_000);
    assert_there(&server, &second);
}

#[test]
fn a_layer_of_another_repository_is_mounted() {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let kept = layer(1, MIB);
    server.put_blob("bases/python", &noise(1, MIB));
    let remote = Layer {
        bytes: LayerBytes::Remote(vec![format!("{}/bases/python", server.host)]),
        ..kept.clone()
    };
    let pushed = bench
        .push(&server, &image(vec![remote.clone(), layer(2, 10)]))
        .unwrap();
    assert_eq!((pushed.reused_layers, pushed.sent_layers), (1, 1));
    let asked = server.asked();
    assert_eq!(count(&asked, "POST", "mount="), 1);
    assert!(taken(&asked) < 10_000, "the layer did not travel");
    assert_eq!(bench.store.blob_size(&remote.digest), None, "not even here");
    assert_there(&server, &image(vec![kept, layer(2, 10)]));
}

#[test]
fn a_mount_that_is_not_granted_becomes_an_upload() {
    let server = Server::start(Settings {
        never_mounts: true,
        ..Settings::default()
    });
    let bench = Bench::new();
    server.put_blob("bases/python", &noise(1, MIB));
    let remote = Layer {
        bytes: LayerBytes::Remote(vec![format!("{}/bases/python", server.host)]),
        ..layer(1, MIB)
    };
    let pushed = bench.push(&server, &image(vec![remote])).unwrap();
    assert_eq!(pushed.sent_layers, 1);
    // The upload that came instead is used, not left open.
    assert_eq!(
        count(&server.asked(), "POST", "/blobs/uploads/"),
        2,
        "the layer's and the config's"
    );
    assert_there(&server, &image(vec![layer(1, MIB)]));
}

#[test]
fn a_layer_of_another_registry_comes_along() {
    let (there, here, bench) = (
        Server::start(Settings::default()),
        Server::start(Settings::default()),
        Bench::new(),
    );
    there.put_blob("bases/python", &noise(1, MIB));
    let remote = Layer {
        bytes: LayerBytes::Remote(vec![format!("{}/bases/python", there.host)]),
        ..layer(1, MIB)
    };
    bench.push(&here, &image(vec![remote])).unwrap();
    assert_eq!(
        count(&here.asked(), "POST", "mount="),
        0,
        "a mount is within one registry"
    );
    assert_there(&here, &image(vec![layer(1, MIB)]));
}

#[test]
fn what_the_tag_names_now_is_not_asked_for() {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let first = image(vec![layer(1, 1000), layer(2, 1000)]);
    bench.push(&server, &first).unwrap();
    let target = reference(&server, "churn:1");
    let known = Bench::wait(bench.registry.known(&target)).unwrap();
    let second = image(vec![layer(1, 1000), layer(3, 1000)]);
    let push = |image, known| {
        drop(server.asked());
        Bench::wait(
            bench
                .registry
                .push(&target, &["1"], image, known, &bench.store, &Silent),
        )
        .unwrap();
        server.asked()
    };
    let asked = push(&second, &known);
    assert_there(&server, &second);
    // A layer and a config: asked for, begun, sent; and the tag, asked for and moved.
    assert_eq!((count(&asked, "HEAD", ""), asked.len()), (3, 8), "{asked:?}");
    // Where no manifest has to be judged, the blobs are asked for after all: what was lost comes back.
    let known = Bench::wait(bench.registry.known(&target)).unwrap();
    server.drop_blob("churn", layer(3, 1000).digest);
    push(&second, &known);
    assert_there(&server, &second);
    // A tag that was moved meanwhile is moved back.
    let known = Bench::wait(bench.registry.known(&target)).unwrap();
    let nothing = Known::default();
    push(&first, &nothing);
    push(&second, &known);
    assert_there(&server, &second);
    // And where it is no longer there, it is found out.
    server.drop_blob("churn", layer(3, 1000).digest);
    let third = image(vec![layer(3, 1000), layer(4, 1000)]);
    push(&third, &known);
    assert_there(&server, &third);
}

#[test]
fn an_index_is_written_after_what_it_lists_and_the_tag_last_of_all() {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let shared = layer(1, 1000);
    let images = vec![
        image_for("linux/amd64", vec![shared.clone(), layer(2, 10)]),
        image_for("linux/arm64", vec![shared, layer(3, 10)]),
    ];
    let index = Publishable::Index(Index::new(images).unwrap());
    let target = reference(&server, "churn");
    let tags = ["1", "1.0", "latest"];
    let pushed =
        Bench::wait(
            bench
                .registry
                .push(&target, &tags, &index, &Known::default(), &bench.store, &Silent),
        )
        .unwrap();
    assert_eq!(pushed.sent_layers, 3, "what both share went once");
    let asked = server.asked();
    let manifests: Vec<_> = asked
        .iter()
        .filter(|asked| asked.method == "PUT" && asked.path.contains("/manifests/"))
        .map(|asked| asked.path.rsplit('/').next().unwrap().to_owned())
        .collect();
    let mut expected: Vec<_> = index
        .images()
        .iter()
        .map(|image| image.digest().to_string())
        .collect();
    // The registry of the tests refuses manifests whose parts are missing, so the blobs came before.
    expected.extend(tags.map(str::to_owned));
    assert_eq!(manifests, expected);
    for tag in tags {
        assert_eq!(
            server.manifest("churn", tag).as_deref(),
            Some(&index.manifest()[..])
        );
    }
    assert_eq!(bench.pull(&server, "churn:1.0").unwrap().digest(), index.digest());
}

#[test]
fn uploads_are_where_the_registry_says() {
    for place in [Place::Relative, Place::Absolute, Place::Query] {
        let server = Server::start(Settings {
            place,
            ..Settings::default()
        });
        let image = image(vec![layer(1, MIB)]);
        server.fault("PUT", &of(&layer(1, MIB)), Some(MIB / 2), Act::Reset);
        Bench::new().push(&server, &image).unwrap();
        assert_eq!(server.left(), 0);
        assert_there(&server, &image);
    }
}

/// What only the closing request of a layer's upload has in its path: the config goes up at the same time.
fn of(layer: &Layer) -> String {
    format!("digest={}", layer.digest.to_string().replace(':', "%3A"))
}

/// A push of one large layer on which `fault` happens; what it cost.
#[track_caller]
fn survives(settings: Settings, after: Option<usize>, act: Act) -> Vec<Asked> {
    let server = Server::start(settings);
    let image = image(vec![layer(1, MIB)]);
    server.fault("PUT", &of(&layer(1, MIB)), after, act);
    let pushed = Bench::new().push(&server, &image).unwrap();
    assert_eq!(pushed.sent_layers, 1);
    assert_eq!(server.left(), 0, "it happened");
    assert_there(&server, &image);
    server.asked()
}

/// Whether what was taken is one large layer, and little more: a config and manifests.
fn is_one_layer(asked: &[Asked]) -> bool {
    (MIB..MIB + 10_000).contains(&taken(asked))
}

#[test]
fn an_upload_goes_on_where_it_was_cut() {
    for at in [0, 1, MIB / 2, MIB - 1] {
        let asked = survives(Settings::default(), Some(at), Act::Reset);
        if at >= 2 {
            // `0-0` may be no byte or one: that upload starts over.
            assert_eq!(count(&asked, "PATCH", "/uploads/"), 1, "cut at {at}");
            assert!(is_one_layer(&asked), "cut at {at}: nothing went twice");
        }
        let forgetful = Settings {
            forgets: true,
            ..Settings::default()
        };
        let asked = survives(forgetful, Some(at), Act::Reset);
        assert_eq!(
            count(&asked, "PATCH", "/uploads/"),
            0,
            "cut at {at}: started over"
        );
    }
}

#[test]
fn a_lost_reply_is_not_a_lost_upload() {
    let asked = survives(Settings::default(), None, Act::Swallow);
    assert_eq!(
        count(&asked, "PUT", "/uploads/"),
        2,
        "the layer's and the config's"
    );
}

#[test]
fn statuses_that_pass() {
    for status in [408, 429, 499, 500, 502, 503, 504, 522] {
        survives(Settings::default(), None, Act::Answer(status, Vec::new()));
    }
    for asked_for in ["0", "1", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"] {
        let headers = vec![("Retry-After", asked_for.to_owned())];
        survives(Settings::default(), None, Act::Answer(429, headers));
    }
}

#[test]
fn statuses_of_small_requests_pass_too() {
    for (method, part) in [
        ("HEAD", "/blobs/sha256"),
        ("POST", "/uploads/"),
        ("HEAD", "/manifests/"),
        ("PUT", "/manifests/1"),
        ("GET", "/v2/"),
    ] {
        let server = Server::start(Settings::default());
        for act in [
            Act::Answer(429, Vec::new()),
            Act::Answer(503, vec![("Retry-After", "0".to_owned())]),
            Act::Reset,
            Act::Swallow,
        ] {
            server.fault(method, part, None, act);
        }
        let image = image(vec![layer(1, 1000)]);
        Bench::new().push(&server, &image).unwrap();
        assert_eq!(server.left(), 0, "{method} {part}");
        assert_there(&server, &image);
    }
}

#[test]
fn an_offset_that_the_registry_disputes_is_asked_for() {
    // The rest after a break is answered with 416, once: asked again, the registry says where it is.
    let server = Server::start(Settings::default());
    let image = image(vec![layer(1, MIB)]);
    server.fault("PUT", &of(&layer(1, MIB)), Some(MIB / 2), Act::Reset);
    server.fault("PATCH", "/uploads/", Some(0), Act::Answer(416, Vec::new()));
    Bench::new().push(&server, &image).unwrap();
    assert_eq!(server.left(), 0);
    assert_there(&server, &image);
}

#[test]
fn a_blob_too_large_for_one_request_goes_in_chunks() {
    for smallest in [None, Some(5 * MIB)] {
        let server = Server::start(Settings {
            largest: Some(6 * MIB),
            smallest,
            ..Settings::default()
        });
        let image = image(vec![layer(1, 9 * MIB)]);
        Bench::new().push(&server, &image).unwrap();
        let asked = server.asked();
        let chunks: Vec<usize> = asked
            .iter()
            .filter(|asked| asked.method == "PATCH")
            .map(|asked| asked.read / MIB)
            .collect();
        let expected = if smallest.is_none() {
            vec![4, 4, 1]
        } else {
            vec![5, 4]
        };
        assert_eq!(chunks, expected);
        assert_there(&server, &image);
    }
}

#[test]
fn chunks_go_on_after_a_break_and_never_lie() {
    let settings = Settings {
        largest: Some(6 * MIB),
        ..Settings::default()
    };
    let server = Server::start(settings.clone());
    server.fault("PATCH", "/uploads/", Some(2 * MIB), Act::Reset);
    server.fault("PATCH", "/uploads/", Some(MIB), Act::Answer(503, Vec::new()));
    let image = image(vec![layer(1, 9 * MIB)]);
    Bench::new().push(&server, &image).unwrap();
    assert_eq!(server.left(), 0);
    assert_there(&server, &image);

    // One that takes the first chunk for all of it never ends up with a tag on half a layer.
    let server = Server::start(Settings {
        takes_a_chunk_for_all: true,
        ..settings
    });
    let error = Bench::new().push(&server, &image).unwrap_err();
    assert_eq!(server.manifest("churn", "1"), None);
    assert!(error.to_string().contains("layer 1"), "{error}");
}

#[test]
fn a_registry_that_stays_broken_is_named_with_the_blob() {
    let server = Server::start(Settings::default());
    for _ in 0..40 {
        server.fault("PUT", "/uploads/", Some(10), Act::Answer(503, Vec::new()));
    }
    let error = Bench::new()
        .push(&server, &image(vec![layer(1, MIB)]))
        .unwrap_err();
    assert!(error.is_temporary());
    let text = error.to_string();
    assert!(
        text.contains("push") && text.contains(&server.host) && text.contains("churn"),
        "{text}"
    );
    assert!(text.contains("layer 1") || text.contains("config"), "{text}");
    assert!(server.left() >= 25, "five tries per blob, not for ever");
    assert_eq!(server.manifest("churn", "1"), None, "no tag without its blobs");
}

#[test]
fn nobody_there_is_temporary() {
    let bench = Bench::new();
    let target: Reference = format!("127.0.0.1:{}/churn", crate::support::peers::free_port())
        .parse()
        .unwrap();
    let made = image(vec![layer(1, 10)]);
    let error =
        Bench::wait(
            bench
                .registry
                .push(&target, &["1"], &made, &Known::default(), &bench.store, &Silent),
        )
        .unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(error.to_string().contains(&target.name()), "{error}");
}

#[test]
fn damaged_bytes_do_not_leave_this_machine() {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let sound = layer(1, MIB);
    for damage in [noise(9, MIB), noise(1, MIB - 1)] {
        let path = bench.folder.path().join("layer");
        std::fs::write(&path, damage).unwrap();
        let damaged = Layer {
            bytes: LayerBytes::File(path),
            ..sound.clone()
        };
        let error = bench.push(&server, &image(vec![damaged])).unwrap_err();
        assert!(matches!(error, RegistryError::Corrupt { .. }), "{error}");
        assert!(!error.is_temporary());
    }
    let gone = Layer {
        bytes: LayerBytes::File(bench.folder.path().join("nowhere")),
        ..sound
    };
    let error = bench.push(&server, &image(vec![gone])).unwrap_err();
    assert!(matches!(error, RegistryError::Read { .. }), "{error}");
    assert_eq!(server.manifest("churn", "1"), None);
}

#[test]
fn progress_counts_each_byte_once() {
    #[derive(Default)]
    struct Counting(Mutex<Vec<(String, u64)>>);
    impl Reporter for Counting {
        fn start(&self, what: &str, _: Unit, _: Option<u64>) -> TaskId {
            let mut tasks = self.0.lock().unwrap();
            tasks.push((what.to_owned(), 0));
            TaskId(tasks.len() as u64 - 1)
        }
        fn advance(&self, task: TaskId, amount: u64) {
            self.0.lock().unwrap()[task.0 as usize].1 += amount;
        }
        fn finish(&self, _: TaskId) {}
        fn note(&self, _: &str) {}
        fn warn(&self, _: &str) {}
    }
    let server = Server::start(Settings {
        forgets: true,
        ..Settings::default()
    });
    server.fault("PUT", &of(&layer(1, MIB)), Some(MIB / 2), Act::Reset);
    let (bench, seen) = (Bench::new(), Counting::default());
    let made = image(vec![layer(1, MIB)]);
    let target = reference(&server, "churn");
    Bench::wait(
        bench
            .registry
            .push(&target, &["1"], &made, &Known::default(), &bench.store, &seen),
    )
    .unwrap();
    let tasks = seen.0.into_inner().unwrap();
    assert!(
        tasks.contains(&("pushing layer 1".to_owned(), MIB as u64)),
        "{tasks:?}"
    );
}

// --- Logins

fn bearer(login: Option<&str>) -> Settings {
    Settings {
        door: Door::Bearer {
            realm: None,
            login: login.map(str::to_owned),
        },
        ..Settings::default()
    }
}

#[test]
fn logins_open_both_kinds_of_doors() {
    for door in [
        Door::Basic("me:hunter2".to_owned()),
        bearer(Some("me:hunter2")).door,
    ] {
        let server = Server::start(Settings {
            door,
            ..Settings::default()
        });
        let made = image(vec![layer(1, 1000)]);
        Bench::with_logins(&[(&server.host, "me:hunter2")])
            .push(&server, &made)
            .unwrap();
        assert_there(&server, &made);

        let error = Bench::with_logins(&[(&server.host, "me:wrong")])
            .push(&server, &made)
            .unwrap_err();
        let RegistryError::Denied { who: Who::Login, .. } = &error else {
            panic!("{error}")
        };
        let error = Bench::new()
            .push(&server, &image(vec![layer(2, 10)]))
            .unwrap_err();
        let RegistryError::Denied {
            who: Who::Anonymous, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert!(!error.is_temporary());
        assert!(error.to_string().contains(&server.host), "{error}");
    }
}

#[test]
fn a_token_that_expires_on_the_way_is_renewed() {
    let server = Server::start(bearer(Some("me:hunter2")));
    let made = image(vec![layer(1, MIB)]);
    // Half of the layer is kept, then the token is worth nothing: a new one goes on from there.
    server.fault(
        "PUT",
        &of(&layer(1, MIB)),
        Some(MIB / 2),
        Act::Answer(401, Vec::new()),
    );
    let bench = Bench::with_logins(&[(&server.host, "me:hunter2")]);
    bench.push(&server, &made).unwrap();
    assert_there(&server, &made);
    let asked = server.asked();
    assert!(count(&asked, "GET", "/token") >= 2);
    assert!(is_one_layer(&asked), "nothing went twice");

    // All of them at once, between two pushes.
    server.revoke();
    let other = image(vec![layer(2, MIB)]);
    bench.push(&server, &other).unwrap();
    assert_there(&server, &other);
}

#[test]
fn an_upload_on_another_origin_hears_no_login() {
    for door in [
        Door::Basic("me:hunter2".to_owned()),
        bearer(Some("me:hunter2")).door,
    ] {
        let (server, other) = Server::pair(|other| Settings {
            door: door.clone(),
            place: Place::Elsewhere(other.to_owned()),
            ..Settings::default()
        });
        let made = image(vec![layer(1, MIB)]);
        let bench = Bench::with_logins(&[(&server.host, "me:hunter2")]);
        other.fault("PUT", "/uploads/", Some(500), Act::Reset);
        bench.push(&server, &made).unwrap();
        assert_there(&server, &made);
        let heard = other.asked();
        assert!(count(&heard, "PUT", "/uploads/") >= 2, "the bytes went there");
        assert!(
            heard.iter().all(|asked| asked.header("authorization").is_none()),
            "{heard:?}"
        );
        assert!(
            server
                .asked()
                .iter()
                .any(|asked| asked.header("authorization").is_some())
        );
    }
}

#[test]
fn a_token_server_on_another_origin_hears_a_login_only_if_the_user_has_one_for_it() {
    let (server, strangers) = Server::pair(|other| Settings {
        door: Door::Bearer {
            realm: Some(format!("http://{other}/token")),
            login: Some("me:hunter2".to_owned()),
        },
        ..Settings::default()
    });
    let made = image(vec![layer(1, 10)]);
    let error = Bench::with_logins(&[(&server.host, "me:hunter2")])
        .push(&server, &made)
        .unwrap_err();
    let RegistryError::Denied {
        who: Who::Withheld { realm },
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(realm.contains(&strangers.host));
    let heard = strangers.asked();
    assert!(count(&heard, "GET", "/token") >= 1);
    assert!(
        heard.iter().all(|asked| asked.header("authorization").is_none()),
        "{heard:?}"
    );

    let logins = [(&*server.host, "me:hunter2"), (&*strangers.host, "x:y")];
    Bench::with_logins(&logins).push(&server, &made).unwrap();
    assert_there(&server, &made);
}

#[test]
fn a_realm_that_is_no_safe_address_is_refused() {
    for (realm, rule) in [
        ("http://tokens.example/token", "neither https"),
        ("http://me:hunter2@127.0.0.1/token", "credentials"),
        ("token", "not a URL"),
        ("file:///etc/passwd", "neither https"),
    ] {
        let server = Server::start(Settings {
            door: Door::Bearer {
                realm: Some(realm.to_owned()),
                login: None,
            },
            ..Settings::default()
        });
        let bench = Bench::with_logins(&[(&server.host, "me:hunter2")]);
        let error = bench.push(&server, &image(vec![layer(1, 10)])).unwrap_err();
        assert!(matches!(error, RegistryError::Realm { .. }), "{error}");
        assert!(error.to_string().contains(rule), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_login_of_a_host_that_only_begins_alike_is_not_sent() {
    let server = Server::start(Settings {
        door: Door::Basic("me:hunter2".to_owned()),
        ..Settings::default()
    });
    let shorter = &server.host[..server.host.len() - 1];
    let longer = format!("{}0", server.host);
    let near = [
        (shorter, "me:hunter2"),
        (&*longer, "me:hunter2"),
        ("127.0.0.1", "me:hunter2"),
    ];
    let error = Bench::with_logins(&near)
        .push(&server, &image(vec![layer(1, 10)]))
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Denied {
                who: Who::Anonymous,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

// --- Pulling what is not what it should be

fn flip(answer: &mut Answer) {
    let middle = answer.body.len() / 2;
    answer.body[middle] ^= 1;
}

fn longer(answer: &mut Answer) {
    answer.body.push(0);
}

fn shorter(answer: &mut Answer) {
    answer.body.pop();
}

fn cut(answer: &mut Answer) {
    answer.cut = Some(answer.body.len() / 2);
}

/// A registry with an image of one layer in it.
fn stocked() -> (Server, Bench, Publishable) {
    let (server, bench) = (Server::start(Settings::default()), Bench::new());
    let made = image(vec![layer(1, MIB)]);
    bench.push(&server, &made).unwrap();
    (server, bench, made)
}

#[test]
fn a_wrong_answer_once_is_asked_for_again() {
    for change in [flip, shorter, cut] {
        for part in ["/manifests/1", "/blobs/sha256"] {
            let (server, bench, made) = stocked();
            server.fault("GET", part, None, Act::Change(change));
            assert_eq!(bench.pull(&server, "churn:1").unwrap().digest(), made.digest());
            assert_eq!(server.left(), 0);
        }
    }
}

#[test]
fn a_wrong_answer_that_stays_is_refused() {
    for change in [flip, longer, shorter] {
        for (part, reference) in [
            ("/manifests/sha256", None),
            ("/manifests/1", Some("churn:1")),
            ("/blobs/sha256", Some("churn:1")),
        ] {
            let (server, bench, made) = stocked();
            for _ in 0..5 {
                server.fault("GET", part, None, Act::Change(change));
            }
            let by_digest = format!("churn@{}", made.digest());
            let error = bench.pull(&server, reference.unwrap_or(&by_digest)).unwrap_err();
            assert!(!error.is_temporary(), "{error}");
            assert!(error.to_string().contains(&server.host), "{error}");
        }
        let (server, bench, _) = stocked();
        let pulled = bench.pull(&server, "churn:1").unwrap();
        let layer = pulled.layers()[0].clone();
        for _ in 0..9 {
            server.fault("GET", "/blobs/sha256", None, Act::Change(change));
        }
        let error = bench.bytes(&layer).unwrap_err();
        assert!(error.to_string().contains(&server.host), "{error}");
        assert_eq!(bench.store.blob_size(&layer.digest), None, "nothing is kept");
    }
}

#[test]
fn a_layer_that_is_cut_on_the_way_goes_on() {
    let (server, bench, _) = stocked();
    let pulled = bench.pull(&server, "churn:1").unwrap();
    server.fault("GET", "/blobs/sha256", None, Act::Change(cut));
    assert_eq!(bench.bytes(pulled.layers()[0]).unwrap(), noise(1, MIB));
    let asked = server.asked();
    assert_eq!(
        asked.last().unwrap().header("range"),
        Some(&*format!("bytes={}-", MIB / 2))
    );
}

#[test]
fn what_is_not_there_is_not_there() {
    let (server, bench, _) = stocked();
    for name in ["churn:2", "other:1"] {
        let error = bench.pull(&server, name).unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    }
    let target = reference(&server, &format!("churn@{}", Digest::of(b"x")));
    let made = image(vec![layer(1, 10)]);
    let error =
        Bench::wait(
            bench
                .registry
                .push(&target, &["1"], &made, &Known::default(), &bench.store, &Silent),
        )
        .unwrap_err();
    assert!(matches!(error, RegistryError::Target { .. }), "{error}");
}
