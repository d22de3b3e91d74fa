//! An endpoint that takes connections and never says a word.

use tokio::net::TcpListener;

/// Accepts and never answers, as a collector does that hangs.
pub struct Silent;

impl Silent {
    /// Serves on a free port of this machine until the runtime ends; also says where.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("the address of a bound port"));
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        (Self, endpoint)
    }

    /// The same on a thread of its own, until the process ends.
    pub fn start_thread() -> (Self, String) {
        crate::on_thread(Self::start)
    }
}
