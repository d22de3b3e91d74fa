//! The simulated store does what a real Redis does: the same random operations on both give the same answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use local_servers::Redis;
use sim::rng::Rng;
use sim::store::{SimStore, Watch};

const SEEDS: u64 = 30;
const OPERATIONS: usize = 60;
const KEYS: usize = 4;
/// Connections that watch; another one only writes.
const WATCHERS: usize = 3;

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Nil,
    Line(String),
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
}

/// As much of the protocol as is needed here.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(address).expect("Redis listens")))
    }

    fn ask(&mut self, command: &[&str]) -> Reply {
        let mut bytes = format!("*{}\r\n", command.len());
        command.iter().for_each(|word| bytes += &format!("${}\r\n{word}\r\n", word.len()));
        self.0.get_mut().write_all(bytes.as_bytes()).expect("Redis reads");
        let reply = self.read();
        assert!(!matches!(&reply, Reply::Line(line) if line.starts_with('-')), "{command:?}: {reply:?}");
        reply
    }

    fn read(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("Redis answers");
        let line = line.trim_end();
        let count = |line: &str| line[1..].parse::<i64>().expect("a number");
        match line.as_bytes()[0] {
            b'$' | b'*' if count(line) < 0 => Reply::Nil,
            b'$' => {
                let mut bytes = vec![0; count(line) as usize + 2];
                self.0.read_exact(&mut bytes).expect("Redis answers");
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            b'*' => Reply::Array((0..count(line)).map(|_| self.read()).collect()),
            _ => Reply::Line(line.to_owned()),
        }
    }
}

fn key(rng: &mut Rng) -> String {
    format!("key:{}", rng.below(KEYS))
}

fn check(seed: u64, address: &str) -> (usize, usize) {
    let mut rng = Rng::new(seed, 3);
    let mut store = SimStore::default();
    let mut writer = Connection::open(address);
    let mut watchers: Vec<(Connection, Option<Watch>)> =
        (0..WATCHERS).map(|_| (Connection::open(address), None)).collect();
    let (mut happened, mut aborted) = (0, 0);
    writer.ask(&["FLUSHALL"]);
    for number in 0..OPERATIONS {
        let value = number.to_string();
        match rng.below(8) {
            0 => {
                let key = key(&mut rng);
                store.set(&key, value.clone().into());
                writer.ask(&["SET", &key, &value]);
            }
            1 => {
                let key = key(&mut rng);
                store.unlink(&key);
                writer.ask(&["UNLINK", &key]);
            }
            2..=4 => {
                let (connection, watch) = &mut watchers[rng.below(WATCHERS)];
                if watch.is_none() {
                    let keys = [key(&mut rng), key(&mut rng)];
                    *watch = Some(store.watch(keys.iter().map(String::as_str)));
                    connection.ask(&["WATCH", &keys[0], &keys[1]]);
                }
            }
            _ => {
                let (connection, watch) = &mut watchers[rng.below(WATCHERS)];
                let Some(watch) = watch.take() else { continue };
                let writes = [(key(&mut rng), Some(Bytes::from(value.clone()))), (key(&mut rng), None)];
                let expected = store.exec(&watch, &writes.to_vec());
                connection.ask(&["MULTI"]);
                connection.ask(&["MSET", &writes[0].0, &value]);
                connection.ask(&["UNLINK", &writes[1].0]);
                let is = connection.ask(&["EXEC"]) != Reply::Nil;
                assert_eq!(is, expected, "seed {seed}, operation {number}");
                (happened, aborted) = (happened + usize::from(is), aborted + usize::from(!is));
            }
        }
        for key in (0..KEYS).map(|number| format!("key:{number}")) {
            let expected = store.get(&key).map_or(Reply::Nil, |value| Reply::Bulk(value.to_vec()));
            assert_eq!(writer.ask(&["GET", &key]), expected, "seed {seed}, operation {number}, {key}");
        }
    }
    (happened, aborted)
}

#[test]
fn a_real_redis_gives_the_same_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(dir.path(), None).expect("Redis starts");
    let (mut happened, mut aborted) = (0, 0);
    for seed in 0..SEEDS {
        let (more_happened, more_aborted) = check(seed, &redis.address());
        (happened, aborted) = (happened + more_happened, aborted + more_aborted);
    }
    println!("{happened} EXECs happened, {aborted} aborted");
    assert!(happened > 100 && aborted > 100, "{happened} EXECs happened, {aborted} aborted");
}
