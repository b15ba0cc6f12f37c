/* The kernels for one type of number, T; READ and WRITE convert it from and to float, OF names its functions.

   A kernel is a loop over rows `lo` to `hi`, compiled once for each generation of processors, and an entry that
   gives every thread its rows. Matrices are dense and row after row unless a stride says otherwise. */

/* --- root-mean-square normalization ------------------------------------------------------------------------ */

/* One row; returns what it was multiplied by. */
INLINE float OF(normalize)(const T *from, const T *weight, float eps, long width, T *to) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (long i = 0; i < width; i++) sum += READ(from[i]) * READ(from[i]);
  float scale = 1.0f / __builtin_sqrtf(sum / (float)width + eps);
  SIMD for (long i = 0; i < width; i++) to[i] = WRITE(READ(from[i]) * scale * READ(weight[i]));
  return scale;
}

PER_PROCESSOR static void OF(norm_rows)(const T *x, const T *weight, float eps, long width, T *out, float *inverse,
                                        long lo, long hi) {
  for (long row = lo; row < hi; row++) {
    float scale = OF(normalize)(x + row * width, weight, eps, width, out + row * width);
    if (inverse) inverse[row] = scale;
  }
}

void OF(norm)(const T *x, const T *weight, float eps, long rows, long width, T *out, float *inverse, int threads) {
  SPLIT(rows, width, OF(norm_rows)(x, weight, eps, width, out, inverse, lo, hi));
}

/* With n = x / rms(x) and y = w n: dL/dx = (w g - n mean(w g n)) / rms(x), dL/dw is the sum of g n over rows.
   `beside` is a gradient that reaches x on another way (the residual stream), or null. */
PER_PROCESSOR static void OF(norm_backward_rows)(const T *grad, const T *x, const T *weight, const float *inverse,
                                                 const T *beside, long width, T *grad_x, float *grad_weight, long lo,
                                                 long hi) {
  for (long row = lo; row < hi; row++) {
    const T *g = grad + row * width, *from = x + row * width, *more = beside ? beside + row * width : 0;
    T *to = grad_x + row * width;
    float scale = inverse[row], dot = 0;
#pragma omp simd reduction(+ : dot)
    for (long i = 0; i < width; i++) {
      float product = READ(g[i]) * READ(from[i]) * scale;
      grad_weight[i] += product;
      dot += product * READ(weight[i]);
    }
    float mean = dot / (float)width * scale;
    if (more)
      SIMD for (long i = 0; i < width; i++)
          to[i] = WRITE(READ(more[i]) + scale * (READ(weight[i]) * READ(g[i]) - READ(from[i]) * mean));
    else
      SIMD for (long i = 0; i < width; i++)
          to[i] = WRITE(scale * (READ(weight[i]) * READ(g[i]) - READ(from[i]) * mean));
  }
}

/* `grad_weight` holds zeros, a row for each thread: their sum is the gradient. */
void OF(norm_backward)(const T *grad, const T *x, const T *weight, const float *inverse, const T *beside, long rows,
                       long width, T *grad_x, float *grad_weight, int threads) {
  SPLIT(rows, 2 * width,
        OF(norm_backward_rows)(grad, x, weight, inverse, beside, width, grad_x, grad_weight + thread * width, lo, hi));
}

/* --- the gate of SwiGLU: silu(gate) * up ------------------------------------------------------------------- */

PER_PROCESSOR static void OF(gate_rows)(const T *gate, const T *up, long width, long stride, T *out, long lo, long hi) {
  for (long row = lo; row < hi; row++) {
    const T *g = gate + row * stride, *u = up + row * stride;
    T *to = out + row * width;
    SIMD for (long i = 0; i < width; i++) to[i] = WRITE(READ(g[i]) * sigmoid(READ(g[i])) * READ(u[i]));
  }
}

void OF(gate)(const T *gate, const T *up, long rows, long width, long stride, T *out, int threads) {
  SPLIT(rows, 4 * width, OF(gate_rows)(gate, up, width, stride, out, lo, hi));
}

PER_PROCESSOR static void OF(gate_backward_rows)(const T *grad, const T *gate, const T *up, T *grad_gate, T *grad_up,
                                                 long lo, long hi) {
  SIMD for (long i = lo; i < hi; i++) {
    float g = READ(gate[i]), turned = sigmoid(g), from = READ(grad[i]);
    grad_up[i] = WRITE(from * g * turned);
    grad_gate[i] = WRITE(from * READ(up[i]) * turned * (1.0f + g * (1.0f - turned)));
  }
}

void OF(gate_backward)(const T *grad, const T *gate, const T *up, long size, T *grad_gate, T *grad_up, int threads) {
  SPLIT(size, 5, OF(gate_backward_rows)(grad, gate, up, grad_gate, grad_up, lo, hi));
}

/* --- rotary positions: channel i turns with channel i + D/2 ------------------------------------------------ */

INLINE void OF(turn)(const T *from, const float *cos, const float *sin, float sign, long half, T *to) {
  SIMD for (long i = 0; i < half; i++) {
    float left = READ(from[i]), right = READ(from[i + half]), s = sin[i] * sign;
    to[i] = WRITE(left * cos[i] - right * s);
    to[i + half] = WRITE(right * cos[i] + left * s);
  }
}

PER_PROCESSOR static void OF(rotate_rows)(const T *x, const float *cos, const float *sin, float sign, long heads,
                                          long half, T *out, long lo, long hi) {
  for (long row = lo; row < hi; row++)
    for (long head = row * heads; head < (row + 1) * heads; head++)
      OF(turn)(x + head * 2 * half, cos + row * half, sin + row * half, sign, half, out + head * 2 * half);
}

void OF(rotate)(const T *x, const float *cos, const float *sin, float sign, long rows, long heads, long half, T *out,
                int threads) {
  SPLIT(rows, 3 * heads * half, OF(rotate_rows)(x, cos, sin, sign, heads, half, out, lo, hi));
}

/* --- cross-entropy: logits become the gradient, scale * (softmax minus one at the target) ------------------ */

PER_PROCESSOR static void OF(cross_entropy_rows)(T *logits, const int64_t *targets, long width, float share, float *loss,
                                                 long lo, long hi) {
  for (long row = lo; row < hi; row++) {
    T *x = logits + row * width;
    float most = -__builtin_inff(), sum = 0;
#pragma omp simd reduction(max : most)
    for (long i = 0; i < width; i++) most = READ(x[i]) > most ? READ(x[i]) : most;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < width; i++) sum += exponential(READ(x[i]) - most);
    float scale = share / sum, target = READ(x[targets[row]]);
    loss[row] = __builtin_logf(sum) - (target - most);
    SIMD for (long i = 0; i < width; i++) x[i] = WRITE(exponential(READ(x[i]) - most) * scale);
    x[targets[row]] = WRITE(exponential(target - most) * scale - share);
  }
}

void OF(cross_entropy)(T *logits, const int64_t *targets, long rows, long width, float scale, float *loss,
                       int threads) {
  SPLIT(rows, 8 * width, OF(cross_entropy_rows)(logits, targets, width, scale, loss, lo, hi));
}

/* --- sums in float32 of gradients in T ---------------------------------------------------------------------- */

PER_PROCESSOR static void OF(add_range)(float *sum, const T *x, long lo, long hi) {
  SIMD for (long i = lo; i < hi; i++) sum[i] += READ(x[i]);
}

void OF(add)(float *sum, const T *x, long size, int threads) { SPLIT(size, 1, OF(add_range)(sum, x, lo, hi)); }

/* --- causal attention inside documents ---------------------------------------------------------------------- */

INLINE void OF(scatter)(const float *from, long width, float scale, long count, long D, T *to, long stride) {
  for (long i = 0; i < count; i++)
    SIMD for (long d = 0; d < D; d++) to[i * stride + d] = WRITE(from[i * width + d] * scale);
}

#define PAIRED 0
#define IN(name) OF(name)
#include "native_attention.h"
#if PAIRS
#define PAIRED 1
#define IN(name) name##_pairs
#include "native_attention.h"
#define FASTEST(name) (D % 2 == 0 && has_dot_products() ? name##_pairs : OF(name))
#else
#define FASTEST(name) OF(name)
#endif

/* The texts of a stream, one after the other: queries [S, H, D], each at its place among the keys of its text, keys and
   values [T, K, D]. Where `slot` is not null, `cached` tokens of a slot of the cache come before a text's own. */
void OF(attention)(const T *q, const T *k, const T *v, const int64_t *at, const int64_t *query_ends,
                   const int64_t *own_ends, long texts, long window, float scale, long H, long K, long D,
                   const int64_t *slot, const int64_t *cached, const T *cached_k, const T *cached_v, long capacity,
                   T *out, float *log_sum, int threads) {
  /* Query heads of one kv head together, unless there are threads that would have nothing to do. */
  long heads = texts * K < threads ? 1 : H / K, parts = H / heads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (long item = 0; item < texts * parts; item++) {
    struct text some = text(query_ends, own_ends, slot, cached, item / parts);
    long head = item % parts * heads, shared = head * K / H, asking = (some.first_query * H + head) * D,
         own = (some.first_own * K + shared) * D, old = (some.slot * K + shared) * capacity * D;
    FASTEST(attention_head)(q + asking, k + own, v + own, cached_k + old, cached_v + old, at + some.first_query, some,
                       window, scale, heads, H, K, D, out + asking,
                       log_sum ? log_sum + some.first_query * H + head : 0);
  }
}

void OF(attention_backward)(const T *grad, const T *out, const float *log_sum, const T *q, const T *k, const T *v,
                            const int64_t *at, const int64_t *query_ends, const int64_t *own_ends, long texts,
                            long window, float scale, long H, long K, long D, T *grad_q, T *grad_k, T *grad_v,
                            int threads) {
  long G = H / K;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (long item = 0; item < texts * K; item++) {
    struct text some = text(query_ends, own_ends, 0, 0, item / K);
    long head = item % K, asking = (some.first_query * H + head * G) * D, own = (some.first_own * K + head) * D;
    FASTEST(attention_backward_head)(grad + asking, out + asking, log_sum + some.first_query * H + head * G, q + asking,
                                k + own, v + own, at + some.first_query, some, window, scale, H, K, D,
                                grad_q + asking, grad_k + own, grad_v + own);
  }
}

/* --- writing one token at a time ---------------------------------------------------------------------------- */

/* Queries, keys and values of each token lie side by side in `qkv`, H + 2K heads. Queries and keys are normalized
   (where there are weights for it) and rotated. */
PER_PROCESSOR static void OF(heads_rows)(const T *qkv, const T *q_weight, const T *k_weight, float eps,
                                         const float *cos, const float *sin, long H, long K, long D, T *q, T *k, T *v,
                                         long lo, long hi) {
  T normed[D];
  for (long row = lo; row < hi; row++) {
    const T *from = qkv + row * (H + 2 * K) * D;
    for (long head = 0; head < H + K; head++, from += D) {
      const T *weight = head < H ? q_weight : k_weight, *turned = from;
      T *to = head < H ? q + (row * H + head) * D : k + (row * K + head - H) * D;
      if (weight) OF(normalize)(from, weight, eps, D, normed), turned = normed;
      OF(turn)(turned, cos + row * D / 2, sin + row * D / 2, 1.0f, D / 2, to);
    }
    memcpy(v + row * K * D, from, K * D * sizeof *from);
  }
}

void OF(heads)(const T *qkv, const T *q_weight, const T *k_weight, float eps, const float *cos, const float *sin,
               long rows, long H, long K, long D, T *q, T *k, T *v, int threads) {
  SPLIT(rows, 3 * (H + 2 * K) * D,
        OF(heads_rows)(qkv, q_weight, k_weight, eps, cos, sin, H, K, D, q, k, v, lo, hi));
}

/* Tokens [rows, K, D] go to their places in a cache [slots, K, capacity, D]. */
void OF(keep)(const T *x, const int64_t *slot, const int64_t *position, long rows, long K, long D, long capacity,
              T *cache, int threads) {
  (void)threads;
  for (long row = 0; row < rows; row++)
    for (long head = 0; head < K; head++)
      memcpy(cache + ((slot[row] * K + head) * capacity + position[row]) * D, x + (row * K + head) * D, D * sizeof *x);
}

/* The dot products of four vectors with one. */
INLINE quad OF(four_dots)(const float *x, const T *a, const T *b, const T *c, const T *d, long size) {
  lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
  long i = 0;
  for (; i + LANES <= size; i += LANES) {
    lanes value = *(const lanes *)(x + i);
    s0 += value * READ_LANES(a + i), s1 += value * READ_LANES(b + i);
    s2 += value * READ_LANES(c + i), s3 += value * READ_LANES(d + i);
  }
  quad total = sums(s0, s1, s2, s3);
  for (; i < size; i++) total += x[i] * (quad){READ(a[i]), READ(b[i]), READ(c[i]), READ(d[i])};
  return total;
}

/* answer += weights @ values, for `count` rows of D numbers. */
INLINE void OF(add_values)(const float *weights, const T *values, long count, long D, float *answer) {
  long d = 0;
  for (; d + 4 * LANES <= D; d += 4 * LANES) { /* in registers until all are added */
    lanes *to = (lanes *)(answer + d), s0 = to[0], s1 = to[1], s2 = to[2], s3 = to[3];
    const T *from = values + d;
    for (long at = 0; at < count; at++, from += D) {
      s0 += weights[at] * READ_LANES(from), s1 += weights[at] * READ_LANES(from + LANES);
      s2 += weights[at] * READ_LANES(from + 2 * LANES), s3 += weights[at] * READ_LANES(from + 3 * LANES);
    }
    to[0] = s0, to[1] = s1, to[2] = s2, to[3] = s3;
  }
  for (long at = 0; at < count && d < D; at++)
    SIMD for (long i = d; i < D; i++) answer[i] += weights[at] * READ(values[at * D + i]);
}

/* What the G query heads of one row read from the kv head that they share. Keys come in blocks, each of which is
   read once for all heads; sums so far are scaled when a block has a higher score (arXiv 1805.02867). */
PER_PROCESSOR static void OF(read_head)(const T *q, const T *keys, const T *values, long first, long length, float scale,
                                        long G, long D, T *out) {
  float asked[G][D], answer[G][D], most[G], total[G], weights[KEYS];
  for (long g = 0; g < G; g++) {
    most[g] = -__builtin_inff(), total[g] = 0;
    for (long d = 0; d < D; d++) asked[g][d] = READ(q[g * D + d]) * scale, answer[g][d] = 0;
  }
  for (long at = first; at < length; at += KEYS) {
    long count = length - at < KEYS ? length - at : KEYS;
    for (long g = 0; g < G; g++) {
      const T *key = keys + at * D;
      for (long i = 0; i < count; i += 4) { /* the last three may be read again: `weights` has room */
        long last = count - 1, i1 = i + 1 < last ? i + 1 : last, i2 = i + 2 < last ? i + 2 : last,
             i3 = i + 3 < last ? i + 3 : last;
        quad dots = OF(four_dots)(asked[g], key + i * D, key + i1 * D, key + i2 * D, key + i3 * D, D);
        memcpy(weights + i, &dots, sizeof dots);
      }
      float high = most[g], sum = 0;
#pragma omp simd reduction(max : high)
      for (long i = 0; i < count; i++) high = weights[i] > high ? weights[i] : high;
#pragma omp simd reduction(+ : sum)
      for (long i = 0; i < count; i++) sum += weights[i] = exponential(weights[i] - high);
      float fade = total[g] == 0 ? 0 : exponential(most[g] - high);
      most[g] = high, total[g] = total[g] * fade + sum;
      SIMD for (long d = 0; d < D; d++) answer[g][d] *= fade;
      OF(add_values)(weights, values + at * D, count, D, answer[g]);
    }
  }
  for (long g = 0; g < G; g++)
    for (long d = 0; d < D; d++) out[g * D + d] = WRITE(answer[g][d] / total[g]);
}

/* One query per row and head, at `place` of its slot: over all tokens up to itself, or the last `window` of them. */
void OF(attend)(const T *q, const T *keys, const T *values, const int64_t *slot, const int64_t *place, long window,
                float scale, long rows, long H, long K, long D, long capacity, T *out, int threads) {
  long G = H / K;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (rows * K > 1)
  for (long item = 0; item < rows * K; item++) {
    long row = item / K, cached = (slot[row] * K + item % K) * capacity * D, end = place[row] + 1;
    OF(read_head)(q + item * G * D, keys + cached, values + cached, window && window < end ? end - window : 0, end,
                  scale, G, D, out + item * G * D);
  }
}

/* Sixteen dot products: of four rows of x with four rows of the weights, each read once. */
INLINE void OF(sixteen_dots)(const float *x, const T *a, const T *b, const T *c, const T *d, long size, quad *total) {
  lanes s[4][4] = {{{0}}};
  long i = 0;
  const float *x1 = x + size, *x2 = x1 + size, *x3 = x2 + size;
#define ROW(r, from)                                    \
  value = *(const lanes *)(from + i);                   \
  s[r][0] += value * wa, s[r][1] += value * wb, s[r][2] += value * wc, s[r][3] += value * wd
  for (; i + LANES <= size; i += LANES) {
    lanes wa = READ_LANES(a + i), wb = READ_LANES(b + i), wc = READ_LANES(c + i), wd = READ_LANES(d + i), value;
    ROW(0, x);
    ROW(1, x1);
    ROW(2, x2);
    ROW(3, x3);
  }
#undef ROW
  for (int row = 0; row < 4; row++) {
    total[row] = sums(s[row][0], s[row][1], s[row][2], s[row][3]);
    for (long j = i; j < size; j++)
      total[row] += x[row * size + j] * (quad){READ(a[j]), READ(b[j]), READ(c[j]), READ(d[j])};
  }
}

/* out = x @ weight.T (+ bias) (+ added) for a few rows of x: weights are read from memory once. */
PER_PROCESSOR static void OF(product_rows)(const float *x, const T *weight, const T *bias, const T *added, long rows,
                                           long inputs, long outputs, T *out, long lo, long hi) {
  for (long n = lo; n < hi; n += 4) {
    long last = hi - 1, n1 = n + 1 < last ? n + 1 : last, n2 = n + 2 < last ? n + 2 : last,
         n3 = n + 3 < last ? n + 3 : last, count = hi - n < 4 ? hi - n : 4;
    const T *a = weight + n * inputs, *b = weight + n1 * inputs, *c = weight + n2 * inputs, *d = weight + n3 * inputs;
    for (long first = 0; first < rows;) {
      quad total[4];
      long some = rows - first >= 4 ? 4 : 1;
      if (some == 4)
        OF(sixteen_dots)(x + first * inputs, a, b, c, d, inputs, total);
      else
        total[0] = OF(four_dots)(x + first * inputs, a, b, c, d, inputs);
      for (long row = 0; row < some; row++)
        for (long i = 0; i < count; i++) {
          long place = (first + row) * outputs + n + i;
          out[place] = WRITE(total[row][i] + (bias ? READ(bias[n + i]) : 0) + (added ? READ(added[place]) : 0));
        }
      first += some;
    }
  }
}

void OF(product)(const T *x, const T *weight, const T *bias, const T *added, long rows, long inputs, long outputs,
                 T *out, int threads) {
  float *full = malloc(sizeof(float) * rows * inputs);
  for (long i = 0; i < rows * inputs; i++) full[i] = READ(x[i]);
  SPLIT(outputs, rows * inputs, OF(product_rows)(full, weight, bias, added, rows, inputs, outputs, out, lo, hi));
  free(full);
}

/* --- a step of decoding: all layers, for a few rows ---------------------------------------------------------- */

/* Where the weights of a layer are; biases and norms of heads may be null. `weights` of `decode` is a list of these. */
struct OF(layer) {
  const T *input_norm, *qkv, *qkv_bias, *q_norm, *k_norm, *out, *out_bias, *mlp_norm, *gate_up, *gate_up_bias, *down,
      *down_bias;
};

/* The next token `ids` of a few texts, from the embedding through all layers to `logits` [rows, V]. `caches` lists the
   keys and values of each layer, `windows` has 0 for a layer that sees everything; `cos` and `sin` are tables by
   place. */
void OF(decode)(const int64_t *ids, const T *embedding, const struct OF(layer) *weights, T *const *caches,
                const int64_t *windows, long layers, const float *cos, const float *sin, const int64_t *slot,
                const int64_t *place, float eps, float scale, long rows, long E, long F, long H, long K, long D,
                long capacity, const T *norm, const T *head, long V, T *logits, int threads) {
  long all = (H + 2 * K) * D, half = D / 2;
  T *work = malloc(sizeof(T) * rows * (2 * all + H * D + 3 * E + 3 * F));
  T *x = work, *normed = x + rows * E, *qkv = normed + rows * E, *q = qkv + rows * all, *k = q + rows * H * D,
    *v = k + rows * K * D, *read = v + rows * K * D, *next = read + rows * H * D, *both = next + rows * E,
    *gated = both + rows * 2 * F;
  float *turns = malloc(sizeof(float) * rows * D), *turns_sin = turns + rows * half;
  for (long row = 0; row < rows; row++) {
    memcpy(x + row * E, embedding + ids[row] * E, sizeof(T) * E);
    memcpy(turns + row * half, cos + place[row] * half, sizeof(float) * half);
    memcpy(turns_sin + row * half, sin + place[row] * half, sizeof(float) * half);
  }
  for (long i = 0; i < layers; i++) {
    struct OF(layer) w = weights[i];
    T *keys = caches[2 * i], *values = caches[2 * i + 1];
    OF(norm)(x, w.input_norm, eps, rows, E, normed, 0, threads);
    OF(product)(normed, w.qkv, w.qkv_bias, 0, rows, E, all, qkv, threads);
    OF(heads)(qkv, w.q_norm, w.k_norm, eps, turns, turns_sin, rows, H, K, D, q, k, v, threads);
    OF(keep)(k, slot, place, rows, K, D, capacity, keys, threads);
    OF(keep)(v, slot, place, rows, K, D, capacity, values, threads);
    OF(attend)(q, keys, values, slot, place, windows[i], scale, rows, H, K, D, capacity, read, threads);
    OF(product)(read, w.out, w.out_bias, x, rows, H * D, E, next, threads);
    OF(norm)(next, w.mlp_norm, eps, rows, E, normed, 0, threads);
    OF(product)(normed, w.gate_up, w.gate_up_bias, 0, rows, E, 2 * F, both, threads);
    OF(gate)(both, both + F, rows, F, 2 * F, gated, threads);
    OF(product)(gated, w.down, w.down_bias, next, rows, F, E, x, threads);
  }
  OF(norm)(x, norm, eps, rows, E, normed, 0, threads);
  OF(product)(normed, head, 0, 0, rows, E, V, logits, threads);
  free(turns), free(work);
}
