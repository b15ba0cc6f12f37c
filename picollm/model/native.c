/* What lies between a transformer's matrix products, in one pass over memory each: for CPUs.

   torch starts several operations where one loop would do, and each reads and writes the whole stream. Products
   of matrices stay torch's. Everything here has a twin of torch operations that runs where no compiler was found
   at installation; the tests compare the two.

   The loops are plain C that a compiler turns into vector instructions, once for each generation of processors;
   which one runs is decided when the file is loaded. Threads are those of torch's own OpenMP, so that there is one
   pool of them. All sums are taken in float32 and in an order that depends on nothing but the shapes and the
   number of threads. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define PER_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define PER_PROCESSOR __attribute__((target_clones("avx512f", "default"))) /* older compilers know no levels */
#else
#define PER_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))
#define SIMD _Pragma("omp simd")
#define KEYS 64     /* of a block of attention: with its values it stays in the nearest cache */
#define QUERIES 32  /* of a block of attention in training */

/* Raised with every change of a signature: a library of another version is not used. */
int picollm_native_version(void) { return 3; }

typedef uint16_t bf16;

INLINE float read_f32(float x) { return x; }
INLINE float write_f32(float x) { return x; }

INLINE float read_bf16(bf16 x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* To the nearest, ties to even. NaN stays NaN: a diverging run must not look healthy. */
INLINE bf16 write_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return x == x ? (bf16)rounded : (bf16)0x7fc0;
}

/* e to the x, off by less than 2 units in the last place between -60 and 60 and held there; NaN stays NaN. What
   would be below e^-60 = 9e-27 never matters beside a 1, and its products could be denormal, which are slow.
   The polynomial is that of the Cephes library. */
INLINE float exponential(float x) {
  float held = x < -60.0f ? -60.0f : x > 60.0f ? 60.0f : x;
  float n = (held * 1.44269504f + 12582912.0f) - 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer */
  float r = held - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  uint32_t bits = (uint32_t)((int32_t)n + 127) << 23; /* without a sign: NaN shifts anything */
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* --- vectors ----------------------------------------------------------------------------- */

#define LANES 16
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef uint32_t lanes_u32 __attribute__((vector_size(4 * LANES)));
typedef uint16_t lanes_u16 __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE lanes read_lanes_f32(const float *x) { return *(const lanes *)x; }

INLINE lanes read_lanes_bf16(const bf16 *x) {
  lanes_u32 bits = __builtin_convertvector(*(const lanes_u16 *)x, lanes_u32) << 16;
  return (lanes)bits;
}

INLINE long padded(long size, long step) { return (size + step - 1) / step * step; }

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t places __attribute__((vector_size(16)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

INLINE quad fold(lanes x) {
  quad parts[4];
  memcpy(parts, &x, sizeof parts);
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

/* The sum over the lanes of each of four vectors. */
INLINE quad sums(lanes a, lanes b, lanes c, lanes d) {
  quad qa = fold(a), qb = fold(b), qc = fold(c), qd = fold(d);
  quad ab = SHUFFLE(qa, qb, 0, 4, 1, 5) + SHUFFLE(qa, qb, 2, 6, 3, 7);
  quad cd = SHUFFLE(qc, qd, 0, 4, 1, 5) + SHUFFLE(qc, qd, 2, 6, 3, 7);
  return SHUFFLE(ab, cd, 0, 1, 4, 5) + SHUFFLE(ab, cd, 2, 3, 6, 7);
}

/* Products of pairs of bfloat16 numbers, where the processor has them. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define HAS_DOT_PRODUCTS 1
#define DOT_PRODUCTS __attribute__((target("arch=x86-64-v4,avx512bf16")))
typedef uint32_t pair __attribute__((aligned(2), may_alias));
typedef uint32_t lanes_pairs __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int16_t lanes_bf16 __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int16_t operand __attribute__((vector_size(4 * LANES)));

static int has_dot_products(void) { return __builtin_cpu_supports("avx512bf16"); }

/* Each sum gets the products of both numbers of its pairs: of `a`, the same for all, and of one of `b`. */
INLINE DOT_PRODUCTS lanes dot(lanes sum, pair a, lanes_pairs b) {
  return __builtin_ia32_dpbf16ps_v16sf(sum, (operand)((lanes_pairs){0} + a), (operand)b);
}

INLINE DOT_PRODUCTS lanes_bf16 rounded(const float *x) { return __builtin_ia32_cvtneps2bf16_v16sf(*(const lanes *)x); }
#else
#define HAS_DOT_PRODUCTS 0
#endif

/* Zeros, where a vector's worth of bytes begins. */
#define ALIGNED __attribute__((aligned(64)))
INLINE void *zeros(long bytes) { return memset(aligned_alloc(64, padded(bytes, 64)), 0, bytes); }

/* Tokens of one text. Its queries follow each other in the stream; its keys are the first `num_cached` of a slot of
   the cache (none in training), then `num_own` that follow each other in the stream. */
struct text {
  long first_query, num_queries, first_own, num_own, slot, num_cached, num_keys;
};

INLINE struct text text(const int64_t *query_ends, const int64_t *own_ends, const int64_t *slot, const int64_t *cached,
                        long index) {
  struct text found = {0};
  found.first_query = index ? query_ends[index - 1] : 0, found.first_own = index ? own_ends[index - 1] : 0;
  found.num_queries = query_ends[index] - found.first_query, found.num_own = own_ends[index] - found.first_own;
  if (slot) found.slot = slot[index], found.num_cached = cached[index];
  found.num_keys = found.num_cached + found.num_own;
  return found;
}

/* Threads take runs of rows of equal length; a run is never worth less than a thread's start. */
#define SPLIT(num_rows, row_cost, call)                                         \
  do {                                                                          \
    long work = (long)(num_rows) * (row_cost), most = work / 16384 + 1;         \
    int team = threads < most ? threads : (int)most;                            \
    _Pragma("omp parallel for schedule(static, 1) num_threads(team) if (team > 1)") \
    for (int thread = 0; thread < team; thread++) {                             \
      long lo = (num_rows) * (long)thread / team, hi = (num_rows) * (long)(thread + 1) / team; \
      call;                                                                     \
    }                                                                           \
  } while (0)

#define T float
#define PAIRS 0
#define READ read_f32
#define READ_LANES read_lanes_f32
#define WRITE write_f32
#define OF(name) name##_f32
#include "native_kernels.h"
#undef T
#undef PAIRS
#undef FASTEST
#undef READ
#undef READ_LANES
#undef WRITE
#undef OF

#define T bf16
#define PAIRS HAS_DOT_PRODUCTS
#define READ read_bf16
#define READ_LANES read_lanes_bf16
#define WRITE write_bf16
#define OF(name) name##_bf16
#include "native_kernels.h"
