//! Stands between a committer and Redis and loses what it is told to lose.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The end of the command in the wire format.
const EXEC: &[u8] = b"$4\r\nEXEC\r\n";
const WATCH: &[u8] = b"$5\r\nWATCH\r\n";

/// What happens to the next EXEC. Each fault happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It is executed, its reply and the connection are lost.
    LoseReply,
    /// As `LoseReply`, and so is the reply to the settling write on the next connection.
    LoseReplyTwice,
    /// It is executed, its reply is lost, and the connection just stays silent.
    SwallowReply,
    /// It never arrives, and the connection is lost.
    LoseRequest,
    /// The client loses the connection at once; the request is delivered when the test says so. Until then no new
    /// connection gets a WATCH through.
    HoldBack,
    /// As `HoldBack`, but the client's connection just stays silent.
    HoldBackSilently,
}

struct State {
    fault: Fault,
    executed: usize,
    lose_next_reply: bool,
}

#[derive(Clone)]
pub struct Proxy {
    pub address: String,
    state: Arc<Mutex<State>>,
    /// A request is held back.
    held: watch::Sender<bool>,
    /// A WATCH waits behind it.
    blocked: watch::Sender<bool>,
    /// What was held back is to be delivered.
    deliver: watch::Sender<bool>,
    /// What Redis said to it.
    late_reply: watch::Sender<Option<Vec<u8>>>,
}

impl Proxy {
    pub async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::new(Mutex::new(State { fault: Fault::None, executed: 0, lose_next_reply: false })),
            held: watch::Sender::new(false),
            blocked: watch::Sender::new(false),
            deliver: watch::Sender::new(false),
            late_reply: watch::Sender::new(None),
        };
        let handle = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, upstream) = (handle.clone(), upstream.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(upstream).await {
                        proxy.serve(client, server).await;
                    }
                });
            }
        });
        proxy
    }

    pub fn set(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
        self.held.send_replace(false);
        self.blocked.send_replace(false);
        self.deliver.send_replace(false);
        self.late_reply.send_replace(None);
    }

    /// Whether the fault has happened.
    pub fn is_spent(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.fault == Fault::None && !state.lose_next_reply
    }

    /// How many EXECs were passed on.
    pub fn executed(&self) -> usize {
        self.state.lock().unwrap().executed
    }

    /// Waits until the request is held back and the next transaction waits behind it.
    pub async fn wait_blocked(&self) {
        super::in_time(self.held.subscribe().wait_for(|held| *held)).await.unwrap();
        super::in_time(self.blocked.subscribe().wait_for(|blocked| *blocked)).await.unwrap();
    }

    /// Delivers the late request; what Redis says to it.
    pub async fn deliver_late(&self) -> Vec<u8> {
        self.deliver.send_replace(true);
        let mut replies = self.late_reply.subscribe();
        let reply = super::in_time(replies.wait_for(Option::is_some)).await.unwrap();
        reply.clone().unwrap()
    }

    async fn serve(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                read = client.read(&mut request) => {
                    let Ok(length @ 1..) = read else { return };
                    let request = &request[..length];
                    self.block_behind_held(request).await;
                    match self.fault_for(request) {
                        Fault::None => server.write_all(request).await.unwrap(),
                        Fault::LoseRequest => return,
                        Fault::LoseReply | Fault::LoseReplyTwice => {
                            server.write_all(request).await.unwrap();
                            // Redis has executed it once the reply is there.
                            let _ = server.read(&mut reply).await;
                            return;
                        }
                        Fault::SwallowReply => {
                            server.write_all(request).await.unwrap();
                            let _ = server.read(&mut reply).await;
                            while matches!(client.read(&mut reply).await, Ok(1..)) {}
                            return;
                        }
                        Fault::HoldBack => {
                            drop(client);
                            return self.hold_back(request, server).await;
                        }
                        Fault::HoldBackSilently => return self.hold_back(request, server).await,
                    }
                }
                read = server.read(&mut reply) => {
                    let Ok(length @ 1..) = read else { return };
                    if client.write_all(&reply[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn block_behind_held(&self, request: &[u8]) {
        if contains(request, WATCH) && *self.held.borrow() {
            self.blocked.send_replace(true);
            let _ = self.late_reply.subscribe().wait_for(Option::is_some).await;
        }
    }

    async fn hold_back(&self, request: &[u8], mut server: TcpStream) {
        self.held.send_replace(true);
        let _ = self.deliver.subscribe().wait_for(|deliver| *deliver).await;
        server.write_all(request).await.unwrap();
        let mut late = vec![0; 1 << 12];
        let length = server.read(&mut late).await.unwrap();
        late.truncate(length);
        self.late_reply.send_replace(Some(late));
    }

    fn fault_for(&self, request: &[u8]) -> Fault {
        let mut state = self.state.lock().unwrap();
        if state.lose_next_reply && contains(request, b"APPEND") {
            state.lose_next_reply = false;
            return Fault::LoseReply;
        }
        // The empty MULTI, EXEC of a new connection is no transaction.
        if !contains(request, EXEC) || !contains(request, b"MSET") {
            return Fault::None;
        }
        state.executed += 1;
        state.lose_next_reply = state.fault == Fault::LoseReplyTwice;
        std::mem::replace(&mut state.fault, Fault::None)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
