//! Records of a participant's command topic.

use bytes::Bytes;
use prost::Message;
use saga_core::record::{Command, CommandRecord, Floor};
use wire::command_record::Kind;

use super::ids::{read_command_id, read_ended, read_ordinal, read_starter, read_step_map, read_trace, write_trace};
use crate::error::{non_empty, parse, unknown_type};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const RECORD: &str = "command record";
const COMMAND: &str = "command";
const FLOOR: &str = "floor";

impl Wire for CommandRecord {
    fn encode(&self) -> Bytes {
        let kind = match self {
            Self::Command(command) => Kind::Command(command.into()),
            Self::Floor(floor) => {
                Kind::Floor(wire::Floor { starter: Some((&floor.starter).into()), ended: Some((&floor.ended).into()) })
            }
        };
        wire::CommandRecord { format: FORMAT, kind: Some(kind) }.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record: wire::CommandRecord = parse(RECORD, bytes)?;
        match record.kind {
            None => Err(unknown_type(RECORD, bytes)),
            Some(Kind::Command(command)) => read_command(command).map(Self::Command),
            Some(Kind::Floor(floor)) => Ok(Self::Floor(Floor {
                starter: read_starter(FLOOR, floor.starter)?,
                ended: read_ended(FLOOR, floor.ended)?,
            })),
        }
    }
}

impl From<&Command> for wire::Command {
    fn from(command: &Command) -> Self {
        Self {
            id: Some((&command.id).into()),
            ordinal: Some((&command.ordinal).into()),
            operation: command.operation.clone(),
            input: command.input.clone(),
            uses: command.uses.clone(),
            may_refuse: command.may_refuse,
            trace: write_trace(&command.trace),
        }
    }
}

fn read_command(command: wire::Command) -> Result<Command, DecodeError> {
    Ok(Command {
        id: read_command_id(COMMAND, command.id)?,
        ordinal: read_ordinal(COMMAND, command.ordinal)?,
        operation: non_empty(COMMAND, "operation", command.operation)?,
        input: command.input,
        uses: read_step_map(COMMAND, command.uses)?,
        may_refuse: command.may_refuse,
        trace: read_trace(command.trace),
    })
}
