//! The checks of a plan: from the shape of the text to a [`Definition`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::error::{DefinitionError, Problem};
use super::yaml::{RawBackoff, RawDefinition, RawStep, line};
use super::{
    Backoff, DEFAULT_BACKOFF, DEFAULT_STEP_TIMEOUT_MS, Definition, DefinitionHash, DefinitionId, MAX_DURATION_MS,
    MAX_NAME_BYTES, MAX_STEPS, OnTimeout, StepIndex, StepKind, StepPlan, StepSet,
};

/// A problem and the line it stands on; the file's name is added at the door.
type Found = (u64, Problem);

/// Checks a plan and computes what follows from it.
pub(super) fn check(file_name: &str, text: &str, raw: &RawDefinition) -> Result<Definition, DefinitionError> {
    plan(text, raw).map_err(|(line, problem)| DefinitionError { file: file_name.to_owned(), line, problem })
}

fn plan(text: &str, raw: &RawDefinition) -> Result<Definition, Found> {
    check_name(&raw.name)?;
    let version = check_range("version", &raw.version, 1, u64::from(u32::MAX))?;
    let deadline_ms = check_duration("deadline_ms", &raw.deadline_ms)?;
    let names = check_step_names(&raw.steps)?;
    let mut steps = raw.steps.value.iter().map(|step| step_plan(step, &names)).collect::<Result<Vec<_>, _>>()?;
    order(&raw.steps.value, &mut steps)?;
    check_uses(&raw.steps.value, &steps)?;
    let pivot = check_pivot(&raw.steps.value, &steps)?;
    Ok(Definition {
        id: DefinitionId { name: raw.name.value.clone(), version: u32::try_from(version).unwrap_or(u32::MAX) },
        hash: DefinitionHash::of(text),
        text: Arc::from(text),
        deadline_ms,
        steps,
        pivot,
    })
}

fn check_name(name: &Spanned<String>) -> Result<(), Found> {
    let bytes = name.value.as_bytes();
    let fits = bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if fits { Ok(()) } else { Err((line(name), Problem::BadName(name.value.clone()))) }
}

fn check_range(field: &'static str, found: &Spanned<u64>, min: u64, max: u64) -> Result<u64, Found> {
    let value = found.value;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err((line(found), Problem::OutOfRange { field, value, min, max }))
    }
}

fn check_duration(field: &'static str, found: &Spanned<u64>) -> Result<u64, Found> {
    check_range(field, found, 1, MAX_DURATION_MS)
}

/// Step names are names, and each stands for one step.
fn check_step_names(steps: &Spanned<Vec<RawStep>>) -> Result<BTreeMap<&str, StepIndex>, Found> {
    let count = steps.value.len();
    if count == 0 {
        return Err((line(steps), Problem::NoSteps));
    }
    if count > MAX_STEPS {
        let limit = MAX_STEPS;
        return Err((line(steps), Problem::TooManySteps { count, limit }));
    }
    let mut names = BTreeMap::new();
    for (index, step) in steps.value.iter().enumerate() {
        check_name(&step.name)?;
        if names.insert(step.name.value.as_str(), index).is_some() {
            return Err((line(&step.name), Problem::DuplicateStep(step.name.value.clone())));
        }
    }
    Ok(names)
}

fn step_plan(raw: &RawStep, names: &BTreeMap<&str, StepIndex>) -> Result<StepPlan, Found> {
    check_name(&raw.participant)?;
    if let Some(operation) = &raw.operation {
        check_name(operation)?;
    }
    let kind = raw.kind.unwrap_or(StepKind::Compensable);
    let operation = raw.operation.as_ref().map_or(&raw.name, |operation| operation);
    Ok(StepPlan {
        name: raw.name.value.clone(),
        participant: Arc::from(raw.participant.value.as_str()),
        operation: operation.value.clone(),
        kind,
        after: named_steps(raw, "after", &raw.after, names)?,
        uses: named_steps(raw, "uses", &raw.uses, names)?,
        ancestors: StepSet::EMPTY,
        descendants: StepSet::EMPTY,
        timeout_ms: match &raw.timeout_ms {
            Some(timeout) => check_duration("timeout_ms", timeout)?,
            None => DEFAULT_STEP_TIMEOUT_MS,
        },
        on_timeout: on_timeout(raw, kind)?,
        backoff: raw.backoff.as_ref().map_or(Ok(DEFAULT_BACKOFF), backoff)?,
        participant_line: line(&raw.participant),
    })
}

fn named_steps(
    step: &RawStep,
    field: &'static str,
    named: &[Spanned<String>],
    names: &BTreeMap<&str, StepIndex>,
) -> Result<StepSet, Found> {
    named
        .iter()
        .map(|name| {
            names.get(name.value.as_str()).copied().ok_or_else(|| {
                let problem = Problem::UnknownStep { step: step.name.value.clone(), field, named: name.value.clone() };
                (line(name), problem)
            })
        })
        .collect()
}

/// A late compensable step starts the undo unless the text says otherwise; after the pivot there is only waiting.
fn on_timeout(raw: &RawStep, kind: StepKind) -> Result<OnTimeout, Found> {
    match (kind, &raw.on_timeout) {
        (StepKind::Compensable, None) => Ok(OnTimeout::Undo),
        (StepKind::Compensable, Some(on_timeout)) => Ok(on_timeout.value),
        (StepKind::Pivot | StepKind::Retriable, Some(on_timeout)) if on_timeout.value == OnTimeout::Undo => {
            Err((line(on_timeout), Problem::UndoAfterPivot(raw.name.value.clone())))
        }
        (StepKind::Pivot | StepKind::Retriable, _) => Ok(OnTimeout::Wait),
    }
}

fn backoff(raw: &RawBackoff) -> Result<Backoff, Found> {
    let first_ms = check_duration("first_ms", &raw.first_ms)?;
    let max_ms = check_duration("max_ms", &raw.max_ms)?;
    if first_ms > max_ms {
        return Err((line(&raw.first_ms), Problem::BackoffShrinks { first_ms, max_ms }));
    }
    Ok(Backoff { first_ms, max_ms })
}

/// Fills in ancestors and descendants; finds cycles.
fn order(raw: &[RawStep], steps: &mut [StepPlan]) -> Result<(), Found> {
    for step in steps.iter_mut() {
        step.ancestors = step.after;
    }
    // A path has fewer edges than there are steps, so as many rounds reach every ancestor.
    for _ in 0..steps.len() {
        for index in 0..steps.len() {
            let above = steps[index].ancestors;
            let wider = above.iter().fold(above, |all, ancestor| all.union(steps[ancestor].ancestors));
            steps[index].ancestors = wider;
        }
    }
    for (index, step) in raw.iter().enumerate() {
        if steps[index].ancestors.contains(index) {
            let edge = step.after.first().unwrap_or(&step.name);
            return Err((line(edge), Problem::Cycle(step.name.value.clone())));
        }
    }
    for index in 0..steps.len() {
        for ancestor in steps[index].ancestors.iter() {
            steps[ancestor].descendants.insert(index);
        }
    }
    Ok(())
}

fn check_uses(raw: &[RawStep], steps: &[StepPlan]) -> Result<(), Found> {
    for (step, plan) in raw.iter().zip(steps) {
        for named in &step.uses {
            let before = plan.ancestors.iter().any(|ancestor| steps[ancestor].name == named.value);
            if !before {
                let step = plan.name.clone();
                let problem = Problem::UsesNotBefore { step, named: named.value.clone() };
                return Err((line(named), problem));
            }
        }
    }
    Ok(())
}

/// At most one pivot; what may refuse comes before it, what may not comes after it.
fn check_pivot(raw: &[RawStep], steps: &[StepPlan]) -> Result<Option<StepIndex>, Found> {
    let mut pivot: Option<StepIndex> = None;
    for (index, plan) in steps.iter().enumerate() {
        match (plan.kind, pivot) {
            (StepKind::Pivot, None) => pivot = Some(index),
            (StepKind::Pivot, Some(first)) => {
                let first = steps[first].name.clone();
                let second = plan.name.clone();
                return Err((line(&raw[index].name), Problem::SecondPivot { first, second }));
            }
            (StepKind::Compensable | StepKind::Retriable, _) => {}
        }
    }
    for (index, plan) in steps.iter().enumerate() {
        let step = || plan.name.clone();
        let name_of = |pivot: StepIndex| steps[pivot].name.clone();
        let problem = match (plan.kind, pivot) {
            (StepKind::Compensable, Some(pivot)) if !steps[pivot].ancestors.contains(index) => {
                Problem::CompensableNotBeforePivot { step: step(), pivot: name_of(pivot) }
            }
            (StepKind::Retriable, Some(pivot)) if !steps[pivot].descendants.contains(index) => {
                Problem::RetriableNotAfterPivot { step: step(), pivot: name_of(pivot) }
            }
            (StepKind::Retriable, None) => Problem::RetriableWithoutPivot(step()),
            (StepKind::Compensable | StepKind::Retriable | StepKind::Pivot, _) => continue,
        };
        return Err((line(&raw[index].name), problem));
    }
    Ok(pivot)
}
