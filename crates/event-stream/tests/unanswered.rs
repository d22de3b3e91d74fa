//! A client whose question for its topic is never answered.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Applier, Store, consume, end, eventually, new_topic, settings};
use event_stream::KafkaSettings;

const LANES: u32 = 4;
/// The api key of a request for metadata (Kafka's protocol guide).
const METADATA: [u8; 2] = [0, 3];

/// An address that leads to the broker. A question for metadata is passed on when the connection brings the next one, so the
/// last one is never answered.
fn late_address(broker: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, broker) = (client.unwrap(), TcpStream::connect(&broker).unwrap());
            let (mut answers, mut back) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut answers, &mut back));
            thread::spawn(move || forward_requests(client, broker));
        }
    });
    address
}

/// A request is its length in four bytes, the api key in two, and more.
fn forward_requests(mut client: TcpStream, mut broker: TcpStream) -> std::io::Result<()> {
    let mut held = None;
    loop {
        let mut request = vec![0; 4];
        client.read_exact(&mut request)?;
        let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]);
        request.resize(4 + length as usize, 0);
        client.read_exact(&mut request[4..])?;
        if !request[4..].starts_with(&METADATA) {
            broker.write_all(&request)?;
        } else if let Some(before) = held.replace(request) {
            broker.write_all(&before)?;
        }
    }
}

/// Before it joins its group, a client asks for its topic, over whatever connection it has. When the broker at the other end
/// turns up under another name meanwhile, the connection is given up and the question with it, and the client asks no more.
/// It happened to clients that were made when a broker had just stood still, to one of some sixty.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_asks_for_its_topic_again() {
    let real = settings();
    let topic = new_topic(&real, LANES).await;
    let settings = KafkaSettings {
        brokers: late_address(real.brokers.clone()),
        // Nobody makes the member anew meanwhile.
        rejoin_deadline: Duration::from_secs(3_600),
        ..real
    };
    let consumer = consume(&settings, &topic, Applier { store: Arc::new(Store::default()) });
    eventually("the member is taken in", || consumer.lanes().len() == LANES as usize).await;
    end(consumer).await;
}
