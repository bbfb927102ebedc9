//! What goes into a pack: hits in the order in which they were found, each whole if it fits. Where one does not, its part
//! fills the gap; where the gap is too small for a part, smaller hits may still fit. Nothing here knows the time or the
//! order of a hash map: the same hits and the same request make the same bytes.

use std::{collections::BTreeMap, ops::Range};

use super::{
    excerpt::{Bounds, Passage},
    render::{self, Block, Head},
    similar::Sketch,
    tokens::{Count, Meter, PIECE_TOKENS_MIN},
};
use crate::domain::{CharRange, Citation, DropReason, Dropped, Hit, PackRequest, PackUnit};

/// Windows that are tried for one part: first at the ends of words, then anywhere.
const TRIES: [(Bounds, u32); 2] = [(Bounds::Words, 8), (Bounds::Characters, 16)];

/// A text within the budget, and what became of each hit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packed {
    pub text: String,
    pub tokens: usize,
    pub citations: Vec<Citation>,
    pub dropped: Vec<Dropped>,
}

/// A hit on its way into the text.
struct Draft<'a> {
    hit: &'a Hit,
    head: Head<'a>,
    passage: Passage<'a>,
    /// As much of the passage as it may be.
    full: Range<usize>,
}

/// A part of a draft that fits.
struct Fit {
    window: Range<usize>,
    block: Block,
    tokens: usize,
}

/// How long a part is, and its block.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    tokens: usize,
}

impl Fit {
    fn size(&self) -> Size {
        Size { bytes: self.window.len(), tokens: self.tokens }
    }
}

struct Placed<'a> {
    draft: Draft<'a>,
    fit: Fit,
    sketch: Sketch,
    truncated: bool,
}

/// What is left for one type.
#[derive(Clone, Copy)]
struct Left {
    tokens: usize,
    items: usize,
}

pub(super) fn pack(hits: &[Hit], request: &PackRequest, meter: Meter<'_>) -> Packed {
    let mut packer = Packer {
        request,
        meter,
        tokens_left: request.budget.max_tokens,
        types: request
            .quotas
            .iter()
            .map(|(name, quota)| {
                let left = |given: Option<usize>| given.unwrap_or(usize::MAX);
                (name.as_str(), Left { tokens: left(quota.max_tokens), items: left(quota.max_items) })
            })
            .collect(),
        placed: Vec::new(),
        dropped: Vec::new(),
    };
    packer.reserve_frame();
    for hit in hits {
        packer.take(hit);
    }
    if request.unit == PackUnit::Auto {
        packer.widen();
    }
    packer.finish()
}

struct Packer<'a> {
    request: &'a PackRequest,
    meter: Meter<'a>,
    tokens_left: usize,
    types: BTreeMap<&'a str, Left>,
    placed: Vec<Placed<'a>>,
    dropped: Vec<Dropped>,
}

impl<'a> Packer<'a> {
    /// What stands around the pieces. Without room for it there is room for nothing.
    fn reserve_frame(&mut self) {
        let format = self.request.format;
        for part in [render::opening(format), render::closing(format)] {
            self.tokens_left = match self.meter.count(part, self.tokens_left) {
                Count::Tokens(tokens) => self.tokens_left.saturating_sub(tokens),
                Count::TooMany | Count::Exhausted => 0,
            };
        }
    }

    fn take(&mut self, hit: &'a Hit) {
        let left = self.left(hit);
        let is_quota = left.items == 0 || left.tokens < self.tokens_left;
        let bounded_by = if is_quota { DropReason::Quota } else { DropReason::Budget };
        let allowance = left.tokens.min(self.tokens_left);
        if left.items == 0 || allowance < PIECE_TOKENS_MIN {
            return self.drop(hit, bounded_by, None);
        }
        self.meter.next_piece();
        let draft = self.draft(hit);
        let sketch = Sketch::of(&draft.passage.text[draft.full.clone()]);
        if let Some(twin) = self.placed.iter().position(|placed| placed.sketch.says_the_same(&sketch)) {
            return self.drop(hit, DropReason::Duplicate, Some(twin + 1));
        }
        match self.fit(&draft, allowance, None) {
            Some(fit) => {
                self.spend(hit, fit.tokens, 1);
                let truncated = fit.window != draft.full;
                self.placed.push(Placed { draft, fit, sketch, truncated });
            }
            None => self.drop(hit, bounded_by, None),
        }
    }

    fn draft(&self, hit: &'a Hit) -> Draft<'a> {
        let passage = match self.request.unit {
            PackUnit::Chunk => Passage::alone(&hit.chunk.text),
            PackUnit::Auto | PackUnit::Context => Passage::within(text_of(hit), &hit.chunk.text),
        };
        let full =
            if self.request.unit == PackUnit::Context { passage.whole() } else { passage.core.clone() };
        let context = &hit.context;
        let head = Head {
            number: self.placed.len() + 1,
            context_type: &context.context_type,
            key: context.key.as_deref(),
        };
        Draft { hit, head, passage, full }
    }

    fn left(&self, hit: &Hit) -> Left {
        let unbounded = Left { tokens: usize::MAX, items: usize::MAX };
        self.types.get(hit.context.context_type.as_str()).copied().unwrap_or(unbounded)
    }

    fn spend(&mut self, hit: &Hit, tokens: usize, items: usize) {
        self.tokens_left -= tokens;
        if let Some(left) = self.types.get_mut(hit.context.context_type.as_str()) {
            left.tokens -= tokens;
            left.items -= items;
        }
    }

    fn give_back(&mut self, hit: &Hit, tokens: usize) {
        self.tokens_left += tokens;
        if let Some(left) = self.types.get_mut(hit.context.context_type.as_str()) {
            left.tokens = left.tokens.saturating_add(tokens);
        }
    }

    fn drop(&mut self, hit: &Hit, reason: DropReason, duplicate_of: Option<usize>) {
        let context = &hit.context;
        self.dropped.push(Dropped {
            context_id: context.id,
            key: context.key.clone(),
            context_type: context.context_type.clone(),
            version: context.version,
            chunk_no: hit.chunk.chunk_no,
            score: hit.score,
            reason,
            duplicate_of,
        });
    }

    /// All of the draft, or else a part of it that is worth its frame; `at_least` fits already.
    fn fit(&mut self, draft: &Draft<'_>, allowance: usize, at_least: Option<Size>) -> Option<Fit> {
        let mut at_most = Size { bytes: draft.full.len(), tokens: self.expected(draft.full.len(), at_least) };
        // A text that is too long by all that is known of it is not counted first.
        let doubt = if at_least.is_some() { allowance / 4 } else { allowance };
        if at_most.tokens <= allowance.saturating_add(doubt) {
            match self.measure(draft, draft.full.clone(), allowance) {
                Ok(fit) if fit.tokens <= allowance => return Some(fit),
                Ok(fit) => at_most.tokens = fit.tokens,
                Err(Count::TooMany) => {}
                Err(_) => return None,
            }
        }
        let more = allowance - at_least.map_or(0, |size| size.tokens);
        self.is_worth_a_part(more).then(|| self.largest(draft, allowance, at_least, at_most)).flatten()
    }

    /// Tokens of a text of so many bytes, if the rest is like what is known of it.
    fn expected(&self, bytes: usize, known: Option<Size>) -> usize {
        match known {
            Some(known) if known.bytes > 0 => bytes.saturating_mul(known.tokens) / known.bytes,
            _ => self.meter.guess(bytes),
        }
    }

    fn is_worth_a_part(&self, tokens: usize) -> bool {
        tokens >= self.meter.part_min().min(self.request.budget.max_tokens / 10)
    }

    /// A part as a block. Without a count when it surely has more than `most`, or enough was counted.
    fn measure(&mut self, draft: &Draft<'_>, window: Range<usize>, most: usize) -> Result<Fit, Count> {
        let shown = draft.passage.shown(&draft.full, &window);
        let block = render::block(self.request.format, draft.head, &shown);
        match self.meter.count(&block.text, most) {
            Count::Tokens(tokens) => Ok(Fit { window, block, tokens }),
            other => Err(other),
        }
    }

    /// The largest part that is found within `allowance`, from what fits already to what does not fit. Tokens do not add up
    /// within a block, so windows are tried: by what the last two had, now and then half-way between them. Good enough is
    /// nine parts of ten.
    fn largest(
        &mut self,
        draft: &Draft<'_>,
        allowance: usize,
        at_least: Option<Size>,
        at_most: Size,
    ) -> Option<Fit> {
        let start = draft.passage.core.start;
        let least = match at_least {
            Some(known) => known,
            None => Size { bytes: 0, tokens: self.measure(draft, start..start, allowance).ok()?.tokens },
        };
        if least.tokens >= allowance {
            return None;
        }
        let mut best: Option<Fit> = None;
        for (bounds, tries) in TRIES {
            let mut low = best.as_ref().map_or(least, Fit::size);
            let mut high = Size { bytes: at_most.bytes + 1, tokens: at_most.tokens.max(allowance + 1) };
            for turn in 0..tries {
                if high.bytes - low.bytes <= 1 {
                    break;
                }
                let bytes = between(low, high, allowance, turn);
                let window = draft.passage.window(&draft.full, bytes, bounds);
                match self.measure(draft, window, allowance) {
                    Ok(fit) if fit.tokens <= allowance => {
                        low = Size { bytes, tokens: fit.tokens };
                        if fit.window.len() > best.as_ref().map_or(0, |best| best.window.len()) {
                            best = Some(fit);
                        }
                        if is_enough(low.tokens, allowance) {
                            return best;
                        }
                    }
                    Ok(fit) => high = Size { bytes, tokens: fit.tokens },
                    Err(Count::TooMany) => high = Size { bytes, tokens: high.tokens },
                    Err(_) => return best,
                }
            }
        }
        best
    }

    /// Gives what is left to the texts around the chunks: the same to each first, then the rest to the best.
    fn widen(&mut self) {
        for is_last in [false, true] {
            let mut waiting = self.placed.iter().filter(|placed| placed.can_grow()).count();
            for index in 0..self.placed.len() {
                if !self.placed[index].can_grow() {
                    continue;
                }
                let share = if is_last { self.tokens_left } else { self.tokens_left / waiting };
                waiting -= 1;
                let share = share.min(self.left(self.placed[index].draft.hit).tokens);
                if share > 0 {
                    self.grow(index, share);
                }
            }
        }
    }

    fn grow(&mut self, index: usize, share: usize) {
        self.meter.next_piece();
        let mut placed = self.placed.swap_remove(index);
        let (chunk, known) = (placed.draft.full.clone(), placed.fit.size());
        placed.draft.full = placed.draft.passage.whole();
        match self.fit(&placed.draft, known.tokens + share, Some(known)) {
            Some(fit) if fit.window.len() > known.bytes => {
                // More of a text may have fewer tokens.
                self.give_back(placed.draft.hit, known.tokens);
                self.spend(placed.draft.hit, fit.tokens, 0);
                placed.fit = fit;
            }
            _ => placed.draft.full = chunk,
        }
        self.placed.push(placed);
        let last = self.placed.len() - 1;
        self.placed.swap(index, last);
    }

    fn finish(self) -> Packed {
        if self.placed.is_empty() {
            return Packed { text: String::new(), tokens: 0, citations: Vec::new(), dropped: self.dropped };
        }
        let format = self.request.format;
        let mut text = render::opening(format).to_owned();
        let mut characters = text.chars().count();
        let mut citations = Vec::with_capacity(self.placed.len());
        for placed in &self.placed {
            let (block, body) = (&placed.fit.block.text, placed.fit.block.body.clone());
            let start = characters + block[..body.start].chars().count();
            let end = start + block[body.clone()].chars().count();
            characters = end + block[body.end..].chars().count();
            text.push_str(block);
            citations.push(placed.citation(CharRange { start, end }));
        }
        text.push_str(render::closing(format));
        let tokens = self.request.budget.max_tokens - self.tokens_left;
        Packed { text, tokens, citations, dropped: self.dropped }
    }
}

impl Placed<'_> {
    /// Whether there is more of its text than it shows, and no reason to cut it.
    fn can_grow(&self) -> bool {
        !self.truncated && self.fit.window != self.draft.passage.whole()
    }

    fn citation(&self, range: CharRange) -> Citation {
        let (hit, context) = (self.draft.hit, &self.draft.hit.context);
        let shown = &self.draft.passage.text[self.fit.window.clone()];
        Citation {
            number: self.draft.head.number,
            context_id: context.id,
            key: context.key.clone(),
            context_type: context.context_type.clone(),
            version: context.version,
            chunk_no: hit.chunk.chunk_no,
            score: hit.score,
            tokens: self.fit.tokens,
            range,
            is_whole: shown.len() == text_of(hit).trim().len(),
            truncated: self.truncated,
            explain: hit.explain,
        }
    }
}

/// All of the context's text.
fn text_of(hit: &Hit) -> &str {
    hit.context.text.as_deref().unwrap_or(&hit.chunk.text)
}

fn is_enough(tokens: usize, allowance: usize) -> bool {
    tokens * 10 >= allowance * 9
}

/// How many bytes to try between what fits and what does not.
fn between(low: Size, high: Size, allowance: usize, turn: u32) -> usize {
    let run = high.bytes - low.bytes;
    let bytes = if turn % 3 == 2 {
        run / 2
    } else {
        // A little less than all, so that it fits.
        let wanted = (allowance - allowance / 32).saturating_sub(low.tokens);
        let rise = high.tokens.saturating_sub(low.tokens).max(1);
        (wanted as f64 * run as f64 / rise as f64) as usize
    };
    (low.bytes + bytes).clamp(low.bytes + 1, high.bytes - 1)
}
