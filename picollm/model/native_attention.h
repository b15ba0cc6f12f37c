/* Causal attention over the texts of a stream, for numbers of one type T and products of one kind.

   A product sums over one axis of both its operands. Neighbours along that axis make up an element: with PAIRED two
   bfloat16 numbers, which a processor that knows them multiplies and adds in one step, and otherwise one number in
   float32. So an operand is laid out by token or by channel, after the axis that is summed over. All sums are in
   float32. IN names the functions. */

#if PAIRED
#define PER 2
#define ELEMENT pair
#define OPERAND lanes_pairs
#define HERE INLINE DOT_PRODUCTS
#define COMPILED DOT_PRODUCTS
#define ADD_PRODUCT(sum, a, b) sum = dot(sum, a, b)
#else
#define PER 1
#define ELEMENT float
#define OPERAND lanes
#define HERE INLINE
#define COMPILED PER_PROCESSOR
#define ADD_PRODUCT(sum, a, b) sum += (a) * (b)
#endif

/* --- products of small matrices ----------------------------------------------------------------------------- */

/* Four rows and `2 * LANES` (or LANES) columns of c (+)= a @ b, kept in registers until they are summed up. */
HERE void IN(multiply_wide)(const ELEMENT *a, long row, long column, const ELEMENT *b, long b_row, float *c, long c_row,
                            long inner) {
  lanes *c0 = (lanes *)c, *c1 = (lanes *)(c + c_row), *c2 = (lanes *)(c + 2 * c_row), *c3 = (lanes *)(c + 3 * c_row);
  lanes s00 = c0[0], s01 = c0[1], s10 = c1[0], s11 = c1[1], s20 = c2[0], s21 = c2[1], s30 = c3[0], s31 = c3[1];
  for (long k = 0; k < inner; k++, a += column, b += b_row) {
    OPERAND b0 = *(const OPERAND *)b, b1 = *(const OPERAND *)(b + LANES);
    ADD_PRODUCT(s00, a[0], b0), ADD_PRODUCT(s01, a[0], b1);
    ADD_PRODUCT(s10, a[row], b0), ADD_PRODUCT(s11, a[row], b1);
    ADD_PRODUCT(s20, a[2 * row], b0), ADD_PRODUCT(s21, a[2 * row], b1);
    ADD_PRODUCT(s30, a[3 * row], b0), ADD_PRODUCT(s31, a[3 * row], b1);
  }
  c0[0] = s00, c0[1] = s01, c1[0] = s10, c1[1] = s11, c2[0] = s20, c2[1] = s21, c3[0] = s30, c3[1] = s31;
}

HERE void IN(multiply_narrow)(const ELEMENT *a, long row, long column, const ELEMENT *b, long b_row, float *c,
                              long c_row, long inner) {
  lanes *c0 = (lanes *)c, *c1 = (lanes *)(c + c_row), *c2 = (lanes *)(c + 2 * c_row), *c3 = (lanes *)(c + 3 * c_row);
  lanes s0 = *c0, s1 = *c1, s2 = *c2, s3 = *c3;
  for (long k = 0; k < inner; k++, a += column, b += b_row) {
    OPERAND b0 = *(const OPERAND *)b;
    ADD_PRODUCT(s0, a[0], b0), ADD_PRODUCT(s1, a[row], b0);
    ADD_PRODUCT(s2, a[2 * row], b0), ADD_PRODUCT(s3, a[3 * row], b0);
  }
  *c0 = s0, *c1 = s1, *c2 = s2, *c3 = s3;
}

/* c += a @ b, with `rows` a multiple of 4 and `columns` of LANES; element (i, k) of a is a[i * row + k * column]. */
HERE void IN(multiply)(const ELEMENT *a, long row, long column, const ELEMENT *b, long b_row, float *c, long c_row,
                       long rows, long columns, long inner) {
  for (long i = 0; i < rows; i += 4) {
    long j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
      IN(multiply_wide)(a + i * row, row, column, b + j, b_row, c + i * c_row + j, c_row, inner);
    if (j < columns) IN(multiply_narrow)(a + i * row, row, column, b + j, b_row, c + i * c_row + j, c_row, inner);
  }
}

/* --- operands ------------------------------------------------------------------------------------------------ */

/* One head's numbers of `count` tokens, which lie `stride` apart, by channel: a row for each token. */
HERE void IN(by_channel)(const T *from, long count, long stride, long D, float scale, ELEMENT *to, long width) {
  for (long i = 0; i < count; i++)
#if PAIRED
    memcpy(to + i * width / PER, from + i * stride, D * sizeof *from), (void)scale;
#else
    SIMD for (long d = 0; d < D; d++) to[i * width + d] = READ(from[i * stride + d]) * scale;
#endif
}

/* The same as tokens `first` to `first + count` of blocks of KEYS tokens, each block with a row for every element. */
HERE void IN(by_channel_in_blocks)(const T *from, long first, long count, long stride, long D, ELEMENT *to,
                                   long width) {
  for (long at = first; at < first + count;) {
    long next = at / KEYS * KEYS + KEYS, end = next < first + count ? next : first + count;
    ELEMENT *block = to + at / KEYS * KEYS * width / PER;
    for (long d = 0; d < D / PER; d++)
      for (long i = at; i < end; i++) {
        const T *number = from + (i - first) * stride + d * PER;
#if PAIRED
        block[d * KEYS + i % KEYS] = *(const pair *)number;
#else
        block[d * KEYS + i % KEYS] = READ(*number);
#endif
      }
    at = end;
  }
}

/* By token: as tokens `first` to `first + count` of `to`, which has a row for every element. */
HERE void IN(by_token)(const T *from, long first, long count, long stride, long D, ELEMENT *to, long width) {
#if PAIRED
  for (long i = 0; i < count;) {
    const T *number = from + i * stride, *next = number + stride;
    long at = first + i, both = at % 2 == 0 && i + 1 < count;
    ELEMENT *row = to + at / 2 * width;
    if (both)
      SIMD for (long d = 0; d < D; d++) row[d] = number[d] | (ELEMENT)next[d] << 16;
    else
      SIMD for (long d = 0; d < D; d++) row[d] |= (ELEMENT)number[d] << (at % 2 * 16);
    i += 1 + both;
  }
#else
  IN(by_channel)(from, count, stride, D, 1, to + first * width, width);
#endif
}

/* Rows of float32 numbers, KEYS apart, as an operand that is summed over keys, or over queries. `to` is used where
   numbers must become others. */
HERE const ELEMENT *IN(by_key)(const float *tile, long rows, long columns, ELEMENT *to) {
#if PAIRED
  for (long i = 0; i < rows; i++)
    for (long j = i * KEYS; j < i * KEYS + columns; j += LANES) *(lanes_bf16 *)(to + j / PER) = rounded(tile + j);
  return to;
#else
  (void)rows, (void)columns, (void)to;
  return tile;
#endif
}

HERE const ELEMENT *IN(by_query)(const float *tile, long rows, long columns, ELEMENT *to) {
#if PAIRED
  for (long i = 0; i < rows; i += PER)
    for (long j = 0; j < columns; j += LANES) {
      lanes_u32 low = __builtin_convertvector((lanes_u16)rounded(tile + i * KEYS + j), lanes_u32);
      lanes_u32 high = __builtin_convertvector((lanes_u16)rounded(tile + (i + 1) * KEYS + j), lanes_u32);
      *(lanes_u32 *)(to + i / PER * KEYS + j) = low | high << 16;
    }
  return to;
#else
  (void)rows, (void)columns, (void)to;
  return tile;
#endif
}

/* --- one head of one text ------------------------------------------------------------------------------------ */

/* Blocks of queries meet blocks of keys, and sums so far are scaled when a block has a higher score (arXiv
   2205.14135). `log_sum`, if not null, gets what backward computes the weights from. */
COMPILED static void IN(attention_head)(const T *q, const T *k, const T *v, const T *cached_k, const T *cached_v,
                                        const int64_t *at, struct text text, long window, float scale, long heads,
                                        long H, long K, long D, T *out, float *log_sum) {
  long width = padded(D, LANES), length = padded(text.num_keys, KEYS), old = text.num_cached;
  ELEMENT *keys = zeros(2 * width * length / PER * sizeof *keys), *values = keys + width * length / PER;
  ELEMENT *asked = zeros(QUERIES * width / PER * sizeof *asked), packed[QUERIES * KEYS / PER] ALIGNED;
  float *answer = zeros(QUERIES * width * sizeof *answer), scores[QUERIES * KEYS] ALIGNED;
  float before = PAIRED ? 1 : scale, after = PAIRED ? scale : 1; /* bfloat16 would be rounded once more */
  IN(by_channel_in_blocks)(cached_k, 0, old, D, D, keys, width);
  IN(by_channel_in_blocks)(k, old, text.num_own, K * D, D, keys, width);
  IN(by_token)(cached_v, 0, old, D, D, values, width);
  IN(by_token)(v, old, text.num_own, K * D, D, values, width);
  for (long g = 0; g < heads; g++)
    for (long first = 0; first < text.num_queries; first += QUERIES) {
      long count = text.num_queries - first < QUERIES ? text.num_queries - first : QUERIES, rows = padded(count, 4);
      float most[QUERIES], total[QUERIES];
      for (long i = 0; i < rows; i++) most[i] = -__builtin_inff(), total[i] = 0;
      memset(answer, 0, QUERIES * width * sizeof *answer);
      IN(by_channel)(q + (first * H + g) * D, count, H * D, D, before, asked, width);
      long start = window && at[first] >= window ? (at[first] - window + 1) / KEYS * KEYS : 0;
      for (long block = start; block <= at[first + count - 1]; block += KEYS) {
        long seen = at[first + count - 1] + 1 - block < KEYS ? at[first + count - 1] + 1 - block : KEYS,
             columns = padded(seen, 2 * LANES);
        memset(scores, 0, sizeof scores);
        IN(multiply)(asked, width / PER, 1, keys + block * width / PER, KEYS, scores, KEYS, rows, columns, D / PER);
        for (long i = 0; i < count; i++) {
          float *x = scores + i * KEYS, high = most[i], sum = 0;
          int to = at[first + i] + 1 - block < KEYS ? at[first + i] + 1 - block : KEYS,
              from = window && at[first + i] + 1 - window > block ? at[first + i] + 1 - window - block : 0;
#pragma omp simd reduction(max : high)
          for (int j = 0; j < columns; j++) high = j >= from && j < to && x[j] * after > high ? x[j] * after : high;
#pragma omp simd reduction(+ : sum)
          for (int j = 0; j < columns; j++) {
            float weight = exponential(x[j] * after - high);
            x[j] = j >= from && j < to ? weight : 0;
            sum += x[j];
          }
          float fade = total[i] == 0 ? 0 : exponential(most[i] - high);
          most[i] = high, total[i] = total[i] * fade + sum;
          if (fade != 1) SIMD for (long d = 0; d < width; d++) answer[i * width + d] *= fade;
        }
        const ELEMENT *weights = IN(by_key)(scores, rows, columns, packed);
        IN(multiply)(weights, KEYS / PER, 1, values + block * width / PER, width, answer, width, rows, width,
                     padded(seen, PER) / PER);
      }
      for (long i = 0; i < count; i++) {
        OF(scatter)(answer + i * width, width, 1 / total[i], 1, D, out + ((first + i) * H + g) * D, 0);
        if (log_sum) log_sum[(first + i) * H + g] = most[i] + __builtin_logf(total[i]);
      }
    }
  free(asked), free(answer), free(keys);
}

/* With weights p = softmax(s): dL/dv sums p g, dL/ds = p (g v - sum of p g v), and the last sum is g times the
   output. Weights are computed again, block by block. */
COMPILED static void IN(attention_backward_head)(const T *grad, const T *out, const float *log_sum, const T *q,
                                                 const T *k, const T *v, const int64_t *at, struct text text,
                                                 long window, float scale, long H, long K, long D, T *grad_q,
                                                 T *grad_k, T *grad_v) {
  long G = H / K, width = padded(D, LANES), length = padded(text.num_keys, KEYS), size = width * length;
  ELEMENT *keys = zeros(3 * size / PER * sizeof *keys), *keys_by_channel = keys + size / PER;
  ELEMENT *values_by_channel = keys + 2 * size / PER;
  long block_size = QUERIES * width / PER;
  ELEMENT *asked = zeros(4 * block_size * sizeof *asked), *g_out = asked + block_size;
  ELEMENT *asked_by_token = PAIRED ? asked + 2 * block_size : asked;
  ELEMENT *g_by_token = PAIRED ? asked + 3 * block_size : g_out;
  float *sum_k = zeros((2 * size + QUERIES * width) * sizeof *sum_k), *sum_v = sum_k + size, *sum_q = sum_v + size;
  float weights[QUERIES * KEYS] ALIGNED, scores[QUERIES * KEYS] ALIGNED;
  ELEMENT packed[QUERIES * KEYS / PER] ALIGNED;
  float before = PAIRED ? 1 : scale, after = PAIRED ? scale : 1;
  IN(by_token)(k, 0, text.num_keys, K * D, D, keys, width);
  IN(by_channel_in_blocks)(k, 0, text.num_keys, K * D, D, keys_by_channel, width);
  IN(by_channel_in_blocks)(v, 0, text.num_keys, K * D, D, values_by_channel, width);
  for (long g = 0; g < G; g++)
    for (long first = 0; first < text.num_queries; first += QUERIES) {
      long count = text.num_queries - first < QUERIES ? text.num_queries - first : QUERIES, rows = padded(count, 4);
      const T *of_q = q + (first * H + g) * D, *of_grad = grad + (first * H + g) * D;
      memset(asked, 0, 4 * block_size * sizeof *asked), memset(sum_q, 0, QUERIES * width * sizeof *sum_q);
      IN(by_channel)(of_q, count, H * D, D, before, asked, width);
      IN(by_channel)(of_grad, count, H * D, D, 1, g_out, width);
      if (PAIRED) IN(by_token)(of_q, 0, count, H * D, D, asked_by_token, width);
      if (PAIRED) IN(by_token)(of_grad, 0, count, H * D, D, g_by_token, width);
      float mean[QUERIES];
      for (long i = 0; i < count; i++) {
        const T *answer = out + ((first + i) * H + g) * D, *from = of_grad + i * H * D;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (long d = 0; d < D; d++) dot += READ(from[d]) * READ(answer[d]);
        mean[i] = dot;
      }
      long start = window && at[first] >= window ? (at[first] - window + 1) / KEYS * KEYS : 0;
      for (long block = start; block <= at[first + count - 1]; block += KEYS) {
        long seen = at[first + count - 1] + 1 - block < KEYS ? at[first + count - 1] + 1 - block : KEYS,
             columns = padded(seen, 2 * LANES), place = block * width / PER, asking = padded(count, PER) / PER;
        memset(weights, 0, sizeof weights), memset(scores, 0, sizeof scores);
        IN(multiply)(asked, width / PER, 1, keys_by_channel + place, KEYS, weights, KEYS, rows, columns, D / PER);
        IN(multiply)(g_out, width / PER, 1, values_by_channel + place, KEYS, scores, KEYS, rows, columns, D / PER);
        for (long i = 0; i < count; i++) {
          float *w = weights + i * KEYS, *x = scores + i * KEYS, total = log_sum[(first + i) * H + g];
          int to = at[first + i] + 1 - block < KEYS ? at[first + i] + 1 - block : KEYS,
              from = window && at[first + i] + 1 - window > block ? at[first + i] + 1 - window - block : 0;
          SIMD for (int j = 0; j < columns; j++) {
            float weight = exponential(w[j] * after - total);
            w[j] = j >= from && j < to ? weight : 0;
            x[j] = w[j] * (x[j] - mean[i]);
          }
        }
        IN(multiply)(IN(by_query)(weights, rows, columns, packed), 1, KEYS, g_by_token, width, sum_v + block * width,
                     width, columns, width, asking);
        IN(multiply)(IN(by_query)(scores, rows, columns, packed), 1, KEYS, asked_by_token, width,
                     sum_k + block * width, width, columns, width, asking);
        IN(multiply)(IN(by_key)(scores, rows, columns, packed), KEYS / PER, 1, keys + place, width, sum_q, width, rows,
                     width, padded(seen, PER) / PER);
      }
      OF(scatter)(sum_q, width, scale, count, D, grad_q + (first * H + g) * D, H * D);
    }
  OF(scatter)(sum_k, width, after, text.num_keys, D, grad_k, K * D);
  OF(scatter)(sum_v, width, 1, text.num_keys, D, grad_v, K * D);
  free(asked), free(sum_k), free(keys);
}

#undef PER
#undef ELEMENT
#undef OPERAND
#undef HERE
#undef COMPILED
#undef ADD_PRODUCT
#undef PAIRED
#undef IN
