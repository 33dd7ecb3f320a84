//! Whether values could have been foreseen by whoever saw those before.
//!
//! Counts, no proof: it finds what counts up, repeats, stands still or keeps to few symbols. Bounds lie so far out that
//! good chance fails less than once in a million runs.

/// Bits that must be beyond guessing: a nonce is of one client's address and a few minutes, and opens nothing by itself.
const BITS: f64 = 30.0;

/// Why these values, in the order they came, can be foreseen. Ask with a hundred or more.
pub(crate) fn is_foreseeable(values: &[Vec<u8>]) -> Option<String> {
    let count = values.len();
    let mut sorted = values.to_vec();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(format!("{:?} comes twice", String::from_utf8_lossy(&pair[0])));
    }
    let length = values.iter().map(Vec::len).min().unwrap_or(0);
    let bits: f64 = (0..length).map(|at| bits_at(values, at)).sum();
    (bits < BITS).then(|| format!("{bits:.0} bits of {count} values are chance"))
}

/// How much chance stands at one place: none where a symbol, or the step from one value to the next, comes too often.
fn bits_at(values: &[Vec<u8>], at: usize) -> f64 {
    let symbols: Vec<u8> = values.iter().filter_map(|value| value.get(at).copied()).collect();
    let steps: Vec<u8> = symbols.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let most = |bytes: &[u8]| {
        let mut times = [0usize; 256];
        bytes.iter().for_each(|byte| times[usize::from(*byte)] += 1);
        (times.iter().max().copied().unwrap_or(0), times.iter().filter(|times| **times > 0).count())
    };
    let ((often, distinct), (steadily, _)) = (most(&symbols), most(&steps));
    // Of 16 symbols each is one in 16: more than one in 4 is no chance.
    let is_even = often * 4 <= symbols.len() && steadily * 4 <= steps.len();
    if is_even { (distinct as f64).log2() } else { 0.0 }
}

/// Why these numbers below `bound`, in the order they came, can be foreseen.
pub(crate) fn are_in_order(numbers: &[u32], bound: u32) -> Option<String> {
    let count = numbers.len() as f64;
    let rises = numbers.windows(2).filter(|pair| pair[1] > pair[0]).count() as f64;
    // Rises of a random order: mean n/2, variance n/12.
    if (rises - count / 2.0).abs() > 6.0 * (count / 12.0).sqrt() {
        return Some(format!("{rises} of {count} rise"));
    }
    let mut steps: Vec<u32> = numbers.windows(2).map(|pair| (pair[1] + bound - pair[0]) % bound).collect();
    steps.sort_unstable();
    let same = steps.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0);
    if same > 6 {
        return Some(format!("one step comes {same} times"));
    }
    let mean = numbers.iter().map(|number| f64::from(*number)).sum::<f64>() / count;
    let off = (mean - f64::from(bound) / 2.0).abs() / (f64::from(bound) / (12.0 * count).sqrt());
    (off > 6.0).then(|| format!("the mean is {off:.1} deviations off"))
}

#[test]
fn what_counts_or_repeats_is_found_out() {
    let hex = |word: u64| format!("{word:016x}").into_bytes();
    let counter: Vec<_> = (0..128).map(|at| hex(1_700_000_000 + at)).collect();
    let stride: Vec<_> = (0..128u64).map(|at| hex(at.wrapping_mul(0x0101_0101_0101_0101))).collect();
    let repeats: Vec<_> = (0..128).map(|at| hex(at % 64)).collect();
    for bad in [counter, stride, repeats] {
        assert!(is_foreseeable(&bad).is_some());
    }
    let mut bytes = [0; 128 * 8];
    getrandom::fill(&mut bytes).expect("the system gives chance");
    let good: Vec<_> = bytes.chunks(8).map(<[u8]>::to_vec).collect();
    assert_eq!(is_foreseeable(&good), None);

    assert!(are_in_order(&(0..256).collect::<Vec<_>>(), 16_384).is_some());
    assert!(are_in_order(&(0..256).map(|at| at * 7919 % 16_384).collect::<Vec<_>>(), 16_384).is_some());
    let good: Vec<u32> = bytes.chunks(4).map(|b| u32::from_be_bytes([0, 0, b[0], b[1]]) % 16_384).collect();
    assert_eq!(are_in_order(&good, 16_384), None);
}
