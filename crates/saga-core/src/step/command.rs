//! The commands that a saga's state stands for.

use crate::definition::StepIndex;
use crate::effect::Effect;
use crate::ids::{CommandId, Direction};
use crate::record::Command;
use crate::saga::{ActionState, Saga};

impl Saga {
    /// The commands that the saga waits for an answer to. One that failed and pauses is left out: its timer sends it.
    pub fn awaited(&self) -> Vec<Effect> {
        (0..self.steps.len())
            .filter(|step| self.steps[*step].retry.is_none())
            .filter_map(|step| self.awaited_command(step))
            .collect()
    }

    /// The command that a step's participant owes an answer to.
    pub(super) fn awaited_command(&self, step: StepIndex) -> Option<Effect> {
        let direction = self.awaits(step)?;
        let plan = self.definition.steps.get(step)?;
        let uses = plan
            .uses
            .iter()
            .filter_map(|used| match (self.definition.steps.get(used), self.steps.get(used)) {
                (Some(plan), Some(state)) => match &state.action {
                    ActionState::Applied { output } => Some((plan.name.clone(), output.clone())),
                    ActionState::NotIssued | ActionState::Issued | ActionState::Refused(_) => None,
                },
                (None, _) | (_, None) => None,
            })
            .collect();
        Some(Effect::Command {
            participant: plan.participant.clone(),
            command: Command {
                id: CommandId { saga: self.id, step: plan.name.clone(), direction },
                ordinal: self.ordinal.clone(),
                operation: plan.operation.clone(),
                input: self.inputs.get(step).cloned().unwrap_or_default(),
                uses,
                may_refuse: direction == Direction::Action && plan.may_refuse(),
                trace: self.trace.clone(),
            },
        })
    }
}
