// Training and inference of the network on a CPU, in float32, the same bits on every processor.
// docs/engine.md says how it works and why it is fast, docs/arithmetic.md what fixes the bits.
//
// library.py puts before this text the network's shapes as constants, SIDE of the images, CLASSES,
// LAYERS and SHAPES (a `Shape` for each convolution), the list FOR_EACH_LAYER(DO) = DO(0) DO(1) …,
// and `Job`, the structure by which Python says what is to be done.
//
// Images come in blocks of LANES = 16. Element i of a `vec` belongs to image i of the block, and
// shapes leave the images out: a tensor (O, S, S) of a block is O·S·S vecs. Planes are squares.
//
//   I, O  channels that go into a convolution, and come out of it: `in` and `out`
//   K     side of its kernel, 1 or 3
//   S     side of its output, in pixels
//   F     side of its input in a frame of zeros for padding, S + K − 1
//   G     side of its output's gradient in a frame of zeros for the way back, see `grad_side`
//   H     side after the pool, S / 2, or S where there is none
//   A     scales of a normalization: O, or O·S·S where every element has its own, or S, for a row's
//   U     units of a normalization, which each have moments: O channels, or O·S rows
//   B     blocks in memory at once
//
// A name that begins with d is the gradient of the loss by what follows: `dweight` by the weight.

typedef struct {
  int in, out, kernel, pad, side, pool;  // side: S; pool: whether a max pool of 2×2 comes after it
  // Tiles, as channels by registers of neighbouring values: of the convolution (O), and of its
  // input's gradient (I). Of the weights' gradient, how many of O. No tile changes a bit.
  int tile_channels, tile_regs, back_channels, back_regs, dweight_channels;
} Shape;

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

static const Shape SHAPE[LAYERS] = {SHAPES};

// ---- all that a processor may do ---------------------------------------------------------------
// + − × ÷ and square root are IEEE 754's, rounded to nearest, with subnormal numbers. The compiler
// may fuse no multiply-add by itself (-ffp-contract=off): `fused` does, and nothing else.

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define REGS (LANES / WIDTH)  // registers that hold a vec
#define MAX_SUMS 32           // no processor has more registers, so no tile has more sums

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float reg __attribute__((vector_size(4 * WIDTH)));  // one register
// Four partial sums over a block's images, see `fold`. Where sums are as many as elements, a vec
// for each would be four times the memory.
typedef float quarter __attribute__((vector_size(LANES)));

// a·b + c, rounded once.
#if defined(__FMA__) || defined(__aarch64__)
INLINE reg fused_reg(reg a, reg b, reg c) { return __builtin_elementwise_fma(a, b, c); }
#else
// Without such an instruction: the product is exact in double precision, and the sum is rounded to
// odd, so that rounding it again, to float, is as good as rounding once (Boldo & Melquiond 2008).
static __attribute__((noinline)) reg fused_reg(reg a, reg b, reg c) {
  typedef double wide __attribute__((vector_size(8 * WIDTH)));
  typedef int64_t bits __attribute__((vector_size(8 * WIDTH)));
  const wide product = __builtin_convertvector(a, wide) * __builtin_convertvector(b, wide);
  const wide addend = __builtin_convertvector(c, wide), zero = (wide){0};
  wide sum = product + addend;
  const wide back = sum - product, error = (product - (sum - back)) + (addend - back);  // Knuth
  const bits inexact = (bits)(error > zero) | (bits)(error < zero);
  const bits even = ((bits)sum & 1) - 1, away = (bits)(error > zero) == (bits)(sum > zero);
  sum = (wide)((bits)sum + (((away & 2) - 1) & inexact & even));
  return __builtin_convertvector(sum, reg);
}
#endif

INLINE vec fused(vec a, vec b, vec c) {
#if WIDTH == LANES
  return fused_reg(a, b, c);
#elif defined(__FMA__) || defined(__aarch64__)
  return __builtin_elementwise_fma(a, b, c);
#else
  reg x[REGS], y[REGS], z[REGS];
  __builtin_memcpy(x, &a, sizeof a), __builtin_memcpy(y, &b, sizeof b);
  __builtin_memcpy(z, &c, sizeof c);
  for (int i = 0; i < REGS; i++) z[i] = fused_reg(x[i], y[i], z[i]);
  __builtin_memcpy(&c, z, sizeof c);
  return c;
#endif
}

INLINE vec zero(void) { return (vec){0}; }
// The same value in every lane. Not 0 + value, which is another number where value is −0, so that
// the compiler would have to add.
INLINE vec broadcast(float value) { return value - (vec){0}; }
INLINE vec square_root(vec v) { return __builtin_elementwise_sqrt(v); }
// Lane by lane, a where the bits of `where` are set, else b.
INLINE vec choose(ivec where, vec a, vec b) {
  return (vec)(((ivec)a & where) | ((ivec)b & ~where));
}
// The second where neither is larger: of 0 and −0, of a NaN and whatever.
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }
// +0 for all that is not above 0, −0 and NaN included.
INLINE reg relu(reg v) {
  typedef int32_t bits __attribute__((vector_size(4 * WIDTH)));
  return (reg)((bits)v & (bits)(v > (reg){0}));
}
// To the nearest whole number, of two the even one, by two additions; for |v| < 2^22.
INLINE vec round_to_even(vec v) {
  const vec shift = broadcast(0x1.8p23f);
  return (v + shift) - shift;
}
// The one tree by which lanes are summed: first the four quarters of a vec, then what is left.
INLINE quarter fold(vec v) {
  quarter part[4];
  __builtin_memcpy(part, &v, sizeof v);
  return (part[0] + part[1]) + (part[2] + part[3]);
}
INLINE float sum_quarter(quarter v) { return (v[0] + v[1]) + (v[2] + v[3]); }
INLINE float sum_lanes(vec v) { return sum_quarter(fold(v)); }
static float lane(const vec *v, int i) { return ((const float *)v)[i]; }
// 1 in the first `lanes` lanes, 0 in the others.
INLINE vec lane_mask(int lanes) {
  float m[LANES];
  for (int i = 0; i < LANES; i++) m[i] = i < lanes;
  vec v;
  __builtin_memcpy(&v, m, sizeof v);
  return v;
}

#define LN2_HIGH 0x1.62e42feep-1  // with so few digits that its products with exponents are exact
#define LN2_LOW 0x1.a39ef35793c76p-33

// e^x for x <= 0, within 1.2 units in the last place; 0 below -700, NaN for NaN. Cody & Waite's
// reduction by multiples of ln 2, then Taylor's series.
static double exponential(double x) {
  if (!(x > -700)) return x <= -700 ? 0 : x;
  const double shift = 0x1.8p52, k = (x * 0x1.71547652b82fep0 + shift) - shift;
  const double r = (x - k * LN2_HIGH) - k * LN2_LOW;
  static const double reciprocal[] = {1.0 / 12, 1.0 / 11, 1.0 / 10, 1.0 / 9, 1.0 / 8, 1.0 / 7,
                                      1.0 / 6,  1.0 / 5,  1.0 / 4,  1.0 / 3, 1.0 / 2};
  double sum = 1 + r * (1.0 / 13);
  for (int i = 0; i < 11; i++) sum = 1 + r * reciprocal[i] * sum;
  const int64_t exponent = ((int64_t)k + 1023) << 52;
  double scale;
  __builtin_memcpy(&scale, &exponent, sizeof scale);
  return (1 + r * sum) * scale;
}

// The natural logarithm of x >= 1, within 1 unit in the last place; NaN and infinity for
// themselves. x = 2^k·(1 + f), and with s = f / (2 + f) the series of 2·artanh(s).
static double logarithm(double x) {
  if (!(x < 0x1p1023)) return x;
  int64_t digits;
  __builtin_memcpy(&digits, &x, sizeof x);
  int64_t exponent = (digits >> 52) - 1023;
  digits = (digits & 0xfffffffffffff) | (1023LL << 52);
  double m;
  __builtin_memcpy(&m, &digits, sizeof m);
  if (m > 0x1.6a09e667f3bcdp0) m *= 0.5, exponent++;
  const double f = m - 1, s = f / (2 + f), z = s * s, half = 0.5 * f * f, k = (double)exponent;
  double series = 0;
  for (int i = 25; i >= 3; i -= 2) series = z * (series + 2.0 / i);
  return k * LN2_HIGH - ((half - (s * (half + series) + k * LN2_LOW)) - f);
}

// Round to nearest and keep subnormal numbers, whatever the calling thread had set; what it had set
// is returned, for `restore_float_mode`.
#if defined(__x86_64__)
INLINE uint64_t set_float_mode(void) {
  const unsigned before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(0x1f80);
  return before;
}
INLINE void restore_float_mode(uint64_t before) { __builtin_ia32_ldmxcsr((unsigned)before); }
#elif defined(__aarch64__)
INLINE uint64_t set_float_mode(void) {
  uint64_t before;
  __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, xzr" : "=&r"(before)::"memory");
  return before;
}
INLINE void restore_float_mode(uint64_t before) {
  __asm__ volatile("msr fpcr, %0" ::"r"(before) : "memory");
}
#endif

// ---- the network in memory ---------------------------------------------------------------------

enum { BATCH, GROUP, ELEMENT, ROW };  // kinds of normalization, as plans.py numbers them

// One convolution with its ReLU, normalization and, where there is one, pool. Tensors are of one
// block, or of all B blocks one after the other, where a B stands before the shape.
typedef struct {
  Shape shape;
  int norm, norm_first;           // kind of normalization; whether it comes before ReLU
  int groups, units, scales;      // its groups, of U / groups units each; U; A
  float *weight, *scale, *shift;  // (O, I, K, K), (A), (A)
  float *dweight, *dscale, *dshift;
  float *running_mean, *running_variance;  // (O), of batch norm

  float *packed, *packed_transposed;  // the weights in the order in which `conv` reads them
  vec *input;                         // (I, F, F); of the first layer B (I, F, F)
  vec *norm_in;                       // B (O, S, S): what is normalized
  vec *mean, *rstd;                   // B (U): mean, and 1 / standard deviation
  vec *norm_out;  // (O, S, S), where a pool or the head reads it, and not the next layer

  vec *dconv;                            // (O, G, G): by the convolution's output
  vec *mean_dy, *mean_dy_xhat;           // (U): see `normalize_backward`
  vec *dweight_lanes;                    // (O, I, K, K): the blocks' sum so far, lanes apart
  quarter *dscale_lanes, *dshift_lanes;  // (A): the same, `fold`ed
} Layer;

typedef struct {
  Layer layer[LAYERS];
  // The head, an average over the plane and a linear layer. O and H are the last layer's.
  vec *features;         // (O, H, H): what is averaged
  float *weight, *bias;  // (CLASSES, O), (CLASSES)
  float *dweight, *dbias;
  vec *dweight_lanes, *dbias_lanes;  // sums over the blocks so far, lanes still apart

  vec *dpooled;  // (O, H, H): by a pool's output; all layers in turn use the same memory
  // B (O, S, S), `dnorm_stride` apart: by a normalization's output. All layers use the same memory:
  // when a convolution writes its input's gradient, which is the `dnorm` of the layer before, its
  // own has been used, and what it overwrites is still in the cache.
  vec *dnorm;
  int64_t dnorm_stride;

  vec *parameters, *velocity, *gradients;  // (count) each, in whole vecs: all of the network
  int64_t count;
  const float *pixel_lut;  // (256): what each pixel value is to the network
} Network;

INLINE int plane(Shape s) { return s.side * s.side; }                       // S·S
INLINE int weights(Shape s) { return s.out * s.in * s.kernel * s.kernel; }  // O·I·K·K
INLINE int input_side(Shape s) { return s.side + s.kernel - 1; }            // F
INLINE int pooled_side(Shape s) { return s.pool ? s.side / 2 : s.side; }    // H
// The input's gradient is a convolution of the output's gradient, which for that needs a frame of
// K − 1 − pad zeros. Where a kernel of 1 has a padded input that number is −1: the output's rim
// then comes from padding alone and is left out.
INLINE int grad_frame(Shape s) { return s.kernel - 1 > s.pad ? s.kernel - 1 - s.pad : 0; }
INLINE int grad_rim(Shape s) { return s.pad > s.kernel - 1 ? s.pad - (s.kernel - 1) : 0; }
INLINE int grad_side(Shape s) { return s.side + 2 * grad_frame(s); }  // G

// (I, F, F) of a block.
INLINE vec *input_of(const Network *n, int layer, int block) {
  const Shape s = SHAPE[0];
  return n->layer[layer].input + (layer == 0 ? block * s.in * input_side(s) * input_side(s) : 0);
}
// (O, S, S) of a block.
INLINE vec *dnorm_of(const Network *n, int block) { return n->dnorm + block * n->dnorm_stride; }

// Memory is handed out from its beginning on; where there is none, only its amount is counted.
typedef struct {
  char *memory;
  int64_t used;
} Arena;

static void *allocate(Arena *arena, int64_t bytes) {
  void *taken = arena->memory ? arena->memory + arena->used : 0;
  arena->used += (bytes + 63) / 64 * 64;
  return taken;
}

static vec *vecs(Arena *arena, int64_t count) {
  return allocate(arena, (int64_t)sizeof(vec) * count);
}

static float *offset_by(vec *base, int64_t count) { return base ? (float *)base + count : 0; }

// Lay out a layer for B blocks. Its parameters begin at `offset` among the network's, `running`
// (O, O) are its running mean and variance; returns the offset of what comes after it.
static int64_t lay_out_layer(const Network *n, Layer *l, int64_t offset, float *running,
                             int64_t blocks, Arena *arena) {
  const Shape s = l->shape;
  const int64_t scale = offset + weights(s), shift = scale + l->scales, out = s.out * plane(s);
  const int64_t packed = (int64_t)sizeof(float) * weights(s);
  const int64_t folded = (int64_t)sizeof(quarter) * l->scales;
  l->weight = offset_by(n->parameters, offset), l->dweight = offset_by(n->gradients, offset);
  l->scale = offset_by(n->parameters, scale), l->dscale = offset_by(n->gradients, scale);
  l->shift = offset_by(n->parameters, shift), l->dshift = offset_by(n->gradients, shift);
  l->running_mean = running, l->running_variance = running ? running + s.out : 0;
  // All blocks of images are kept. Other inputs are made again from `norm_in` on the way back.
  l->input = vecs(arena, (l == n->layer ? blocks : 1) * s.in * input_side(s) * input_side(s));
  l->norm_in = vecs(arena, blocks * out);
  l->norm_out = vecs(arena, out);
  l->dconv = vecs(arena, s.out * grad_side(s) * grad_side(s));
  l->mean = vecs(arena, blocks * l->units), l->rstd = vecs(arena, blocks * l->units);
  l->mean_dy = vecs(arena, l->units), l->mean_dy_xhat = vecs(arena, l->units);
  l->dweight_lanes = vecs(arena, weights(s));
  l->dscale_lanes = allocate(arena, folded), l->dshift_lanes = allocate(arena, folded);
  l->packed = allocate(arena, packed), l->packed_transposed = allocate(arena, packed);
  return shift + l->scales;
}

// Lay out a network for B blocks, in memory that is all zeros; returns the bytes that takes.
static int64_t lay_out(Network *n, const Job *job, int64_t blocks, char *memory) {
  Arena arena = {memory, 0};
  int64_t largest = 0, largest_pooled = 0;
  const Shape last = SHAPE[LAYERS - 1];
  n->count = CLASSES * last.out + CLASSES;
  for (int i = 0; i < LAYERS; i++) {
    Layer *l = n->layer + i;
    const Shape s = l->shape = SHAPE[i];
    const int64_t out = s.out * plane(s), pooled = s.out * pooled_side(s) * pooled_side(s);
    l->norm = job->norms[i], l->norm_first = job->norm_first[i];
    l->units = l->norm == ROW ? s.out * s.side : s.out;
    l->groups = l->norm == ROW ? l->units : job->groups[i];
    l->scales = l->norm == ELEMENT ? (int)out : l->norm == ROW ? s.side : s.out;
    n->count += weights(s) + 2 * l->scales;
    if (out > largest) largest = out;
    if (pooled > largest_pooled) largest_pooled = pooled;
  }
  const int64_t whole = (n->count + LANES - 1) / LANES;
  n->parameters = vecs(&arena, whole);
  n->velocity = vecs(&arena, whole);
  n->gradients = vecs(&arena, whole);
  int64_t offset = 0;
  float *running = job->running;
  for (int i = 0; i < LAYERS; i++) {
    Layer *l = n->layer + i;
    const int batch = l->norm == BATCH;
    offset = lay_out_layer(n, l, offset, batch ? running : 0, blocks, &arena);
    if (batch) running += 2 * l->shape.out;
  }
  const int64_t bias = offset + CLASSES * last.out;
  n->weight = offset_by(n->parameters, offset), n->dweight = offset_by(n->gradients, offset);
  n->bias = offset_by(n->parameters, bias), n->dbias = offset_by(n->gradients, bias);
  n->dweight_lanes = vecs(&arena, CLASSES * last.out), n->dbias_lanes = vecs(&arena, CLASSES);
  n->features = last.pool ? vecs(&arena, last.out * pooled_side(last) * pooled_side(last))
                          : n->layer[LAYERS - 1].norm_out;
  n->dpooled = vecs(&arena, largest_pooled);
  n->dnorm_stride = largest, n->dnorm = vecs(&arena, blocks * largest);
  n->pixel_lut = job->pixel_lut;
  return arena.used;
}

// B: batch norm's statistics need all blocks of a batch, where it trains. Otherwise images are
// independent, and a block goes all the way through while it is in the cache.
static int64_t blocks_of(const Job *job) {
  const int64_t most = job->batch_size < job->count ? job->batch_size : job->count;
  const int batch = job->norms[0] == BATCH;  // a network has it in all of its layers or in none
  return batch && job->velocity ? (most + LANES - 1) / LANES : 1;
}

static void set_up(Network *n, const Job *job) {
  *n = (Network){0};
  __builtin_memset(job->memory, 0, (size_t)job->memory_size);
  lay_out(n, job, blocks_of(job), job->memory);
  __builtin_memcpy(n->parameters, job->parameters, sizeof(float) * (size_t)n->count);
}

// ---- images ------------------------------------------------------------------------------------

// The nearest whole number to a position, or that of the border, −1 or SIDE, where it is outside or
// not a number.
INLINE vec nearest_pixel(vec position) {
  const vec least = broadcast(-1), most = broadcast(SIDE);
  position = choose(position > least, position, least);
  return round_to_even(choose(position < most, position, most));
}

// Warp the first `lanes` images of `order` into the first layer's input, (1, F, F): each pixel gets
// the value of the one that is nearest to where its affine map points. `images` have a border of
// background, (·, SIDE + 2, SIDE + 2); without `maps` (lanes, 2, 3) they stay as they are.
static void warp(const Network *n, const uint8_t *images, const int64_t *order, const float *maps,
                 int lanes, vec *to) {
  const Shape s = SHAPE[0];
  const float centre = (SIDE - 1) / 2.0f;
  const int from_side = SIDE + 2, to_side = input_side(s);
  const uint8_t *image[LANES];
  float m[6][LANES];
  for (int i = 0; i < LANES; i++) {
    const int j = i < lanes ? i : 0;
    image[i] = images + order[j] * from_side * from_side + from_side + 1;
    for (int k = 0; k < 6; k++) m[k][i] = maps ? maps[6 * j + k] : k == 0 || k == 4;
  }
  vec v[6];
  __builtin_memcpy(v, m, sizeof v);
  for (int y = 0; y < SIDE; y++) {
    const vec py = broadcast((float)y - centre);
    const vec column = fused(v[1], py, v[2] + centre), row = fused(v[4], py, v[5] + centre);
    for (int x = 0; x < SIDE; x++) {
      const vec px = broadcast((float)x - centre);
      const vec source = nearest_pixel(fused(v[3], px, row)) * (float)from_side +
                         nearest_pixel(fused(v[0], px, column));
      const ivec whole = __builtin_convertvector(source, ivec);
      int32_t index[LANES];
      __builtin_memcpy(index, &whole, sizeof index);
      float *pixel = (float *)(to + (y + s.pad) * to_side + x + s.pad);
      for (int i = 0; i < LANES; i++) pixel[i] = n->pixel_lut[image[i][index[i]]];
    }
  }
}

// ---- pool --------------------------------------------------------------------------------------
// A max pool of 2×2. Of an odd side the last row and column are left out, as in PyTorch.

// x (O, S, S) to y (O, H, H), which has a frame of `pad` zeros.
static void pool_forward(const Shape s, const vec *x, vec *y, int pad) {
  const int side = s.side, half = side / 2, to_side = half + 2 * pad;
  for (int c = 0; c < s.out; c++)
    for (int row = 0; row < half; row++)
      for (int column = 0; column < half; column++) {
        const vec *f = x + (c * side + 2 * row) * side + 2 * column;
        y[(c * to_side + row + pad) * to_side + column + pad] =
            larger(larger(f[0], f[1]), larger(f[side], f[side + 1]));
      }
}

// dy (O, H, H) to dx (O, S, S): the first of the largest of x gets all, as in PyTorch.
static void pool_backward(const Shape s, const vec *x, const vec *dy, vec *dx) {
  const int side = s.side, half = side / 2;
  if (side % 2) __builtin_memset(dx, 0, sizeof(vec) * (size_t)(s.out * side * side));
  for (int c = 0; c < s.out; c++)
    for (int row = 0; row < half; row++)
      for (int column = 0; column < half; column++) {
        const vec *f = x + (c * side + 2 * row) * side + 2 * column;
        vec *t = dx + (c * side + 2 * row) * side + 2 * column;
        const vec g = dy[(c * half + row) * half + column];
        const vec f0 = f[0], f1 = f[1], f2 = f[side], f3 = f[side + 1];
        const vec best = larger(larger(f0, f1), larger(f2, f3));
        const ivec i0 = f0 == best, i1 = (f1 == best) & ~i0, i2 = (f2 == best) & ~(i0 | i1);
        const ivec i3 = ~(i0 | i1 | i2);
        t[0] = choose(i0, g, zero()), t[1] = choose(i1, g, zero());
        t[side] = choose(i2, g, zero()), t[side + 1] = choose(i3, g, zero());
      }
}

// ---- convolution and ReLU ----------------------------------------------------------------------
// Lengths of rows and planes are counted in registers here; `width` is a row's length in pixels.

// Sums of `C` channels by `N` registers of neighbouring values: y[c][p] = Σ w·x over in, ky and kx,
// in this order whatever the tile. x and y point to the tile's first value, w to its weights
// (in, K, K, C). With `rectify` ReLU follows.
INLINE void conv_tile(const int C, const int N, const int K, const int in, const reg *x,
                      const int xrow, const int xplane, const float *w, reg *y, const int yplane,
                      const int rectify) {
  reg sum[MAX_SUMS];
  UNROLL for (int c = 0; c < C * N; c++) sum[c] = (reg){0};
  for (int i = 0; i < in; i++)
    for (int ky = 0; ky < K; ky++) {
      const reg *row = x + i * xplane + ky * xrow;
      UNROLL for (int kx = 0; kx < K; kx++) {
        UNROLL for (int c = 0; c < C; c++) {
          const reg weight = w[c] - (reg){0};
          UNROLL for (int p = 0; p < N; p++)
            sum[c * N + p] = fused_reg(weight, row[kx * REGS + p], sum[c * N + p]);
        }
        w += C;
      }
    }
  UNROLL for (int c = 0; c < C; c++) {
    UNROLL for (int p = 0; p < N; p++)
      y[c * yplane + p] = rectify ? relu(sum[c * N + p]) : sum[c * N + p];
  }
}

// `C` channels of the output, (C, side, side), tile by tile.
INLINE void conv_channels(const int C, const int N, const int K, const int in, const reg *x,
                          const int xside, const float *w, reg *y, const int side,
                          const int rectify) {
  const int xrow = xside * REGS, xplane = xside * xrow, yrow = side * REGS, yplane = side * yrow;
  const int rest = yrow % N;
  for (int row = 0; row < side; row++) {
    for (int p = 0; p < yrow - rest; p += N)
      conv_tile(C, N, K, in, x + row * xrow + p, xrow, xplane, w, y + row * yrow + p, yplane,
                rectify);
    if (rest)
      conv_tile(C, rest, K, in, x + row * xrow + yrow - rest, xrow, xplane, w,
                y + row * yrow + yrow - rest, yplane, rectify);
  }
}

// A convolution of a block: x (in, xside, xside) and packed weights to y (out, side, side).
INLINE void conv(const int C, const int N, const int K, const int in, const vec *x, const int xside,
                 const float *packed, const int out, vec *y, const int side, const int rectify) {
  const int rest = out % C, size = in * K * K, yplane = side * side * REGS;
  for (int c = 0; c < out - rest; c += C)
    conv_channels(C, N, K, in, (const reg *)x, xside, packed + c * size, (reg *)y + c * yplane,
                  side, rectify);
  if (rest)
    conv_channels(rest, N, K, in, (const reg *)x, xside, packed + (out - rest) * size,
                  (reg *)y + (out - rest) * yplane, side, rectify);
}

// Weights (O, I, K, K) for the convolution, in the order in which `conv_tile` reads them: for each
// tile's channels (I, K, K, channels).
static void pack(const Layer *l) {
  const Shape s = l->shape;
  const int kk = s.kernel * s.kernel;
  float *packed = l->packed;
  for (int c = 0; c < s.out; c += s.tile_channels)
    for (int i = 0; i < s.in * kk; i++)
      for (int o = c; o < s.out && o < c + s.tile_channels; o++)
        *packed++ = l->weight[o * s.in * kk + i];
}

// The same for its input's gradient, the transposed convolution: channels exchanged, (I, O, K, K),
// and kernels turned by half a circle.
static void pack_transposed(const Layer *l) {
  const Shape s = l->shape;
  const int kk = s.kernel * s.kernel;
  float *packed = l->packed_transposed;
  for (int c = 0; c < s.in; c += s.back_channels)
    for (int o = 0; o < s.out; o++)
      for (int k = kk - 1; k >= 0; k--)
        for (int i = c; i < s.in && i < c + s.back_channels; i++)
          *packed++ = l->weight[(o * s.in + i) * kk + k];
}

// Convolution of a block, and ReLU where that comes before the normalization: `input` (I, F, F) to
// `norm_in` (O, S, S). Each layer has a case of its own, where its shape is constant, so that the
// compiler unrolls its tiles.
static void conv_forward(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const vec *x = input_of(n, layer, block);
  vec *y = l->norm_in + block * l->shape.out * plane(l->shape);
  const int rectify = !l->norm_first;
  switch (layer) {
#define DO(i)                                                                        \
  case i:                                                                            \
    conv(SHAPE[i].tile_channels, SHAPE[i].tile_regs, SHAPE[i].kernel, SHAPE[i].in, x, \
         input_side(SHAPE[i]), l->packed, SHAPE[i].out, y, SHAPE[i].side, rectify);  \
    break;
    FOR_EACH_LAYER(DO)
#undef DO
  }
}

// sums[c][k] += Σ dy·x over `rows` rows of `columns` pixels, for `C` of the output's channels and
// the K weights of one row of their kernels. One register of each vec, REGS apart, at a time.
INLINE void dweight_tile(const int C, const int K, const reg *x, const int xrow, const reg *dy,
                         const int dyrow, const int dyplane, const int rows, const int columns,
                         reg *sums, const int sums_plane) {
  reg sum[MAX_SUMS];
  UNROLL for (int c = 0; c < C; c++) {
    UNROLL for (int k = 0; k < K; k++) sum[c * K + k] = sums[c * sums_plane + k * REGS];
  }
  for (int r = 0; r < rows; r++)
    for (int p = 0; p < columns; p++) {
      UNROLL for (int c = 0; c < C; c++) {
        const reg gradient = dy[c * dyplane + r * dyrow + p * REGS];
        UNROLL for (int k = 0; k < K; k++)
          sum[c * K + k] = fused_reg(gradient, x[r * xrow + (p + k) * REGS], sum[c * K + k]);
      }
    }
  UNROLL for (int c = 0; c < C; c++) {
    UNROLL for (int k = 0; k < K; k++) sums[c * sums_plane + k * REGS] = sum[c * K + k];
  }
}

// Adds a block's gradient of the weights to `sums` (O, I, K, K), from the input x (I, F, F) and the
// output's gradient dy (O, G, G).
INLINE void conv_backward_weight(const Shape s, const vec *x, const vec *dy, vec *sums) {
  const int C = s.dweight_channels, K = s.kernel, rest = s.out % C;
  const int xrow = input_side(s) * REGS, xplane = input_side(s) * xrow;
  const int dyrow = grad_side(s) * REGS, dyplane = grad_side(s) * dyrow;
  const int sums_plane = s.in * K * K * REGS;
  // Some 36 pixels of all channels, in whole rows, stay in the cache while all weights meet them.
  const int most = s.side < 36 ? 36 / s.side : 1;
  dy += grad_frame(s) * (grad_side(s) + 1);
  for (int row = 0; row < s.side; row += most) {
    const int rows = s.side - row < most ? s.side - row : most;
    for (int c = 0; c < s.out; c += C)
      for (int i = 0; i < s.in; i++)
        for (int ky = 0; ky < K; ky++)
          for (int r = 0; r < REGS; r++) {
            const reg *from = (const reg *)x + i * xplane + (row + ky) * xrow + r;
            const reg *by = (const reg *)dy + c * dyplane + row * dyrow + r;
            reg *to = (reg *)sums + c * sums_plane + (i * K + ky) * K * REGS + r;
            if (c + C <= s.out)
              dweight_tile(C, K, from, xrow, by, dyrow, dyplane, rows, s.side, to, sums_plane);
            else if (rest)
              dweight_tile(rest, K, from, xrow, by, dyrow, dyplane, rows, s.side, to, sums_plane);
          }
  }
}

// Gradients of a block from `dconv`: adds that of the weights, and writes that of the input without
// its frame, (I, side, side), to dx, unless that is null.
INLINE void conv_backward_both(const Layer *l, const Shape s, const vec *x, vec *dx) {
  conv_backward_weight(s, x, l->dconv, l->dweight_lanes);
  if (dx)
    conv(s.back_channels, s.back_regs, s.kernel, s.out, l->dconv + grad_rim(s) * (grad_side(s) + 1),
         grad_side(s), l->packed_transposed, s.in, dx, input_side(s) - 2 * s.pad, 0);
}

// A block back through a layer's convolution, and through the pool before it: from its `dconv` to
// the `dnorm` (O, S, S) of the layer before. The first layer has weights alone to give a gradient.
static void conv_backward(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int pooled = layer > 0 && l[-1].shape.pool;
  vec *dx = layer == 0 ? 0 : pooled ? n->dpooled : dnorm_of(n, block);
  const vec *x = input_of(n, layer, block);
  switch (layer) {
#define DO(i)                                         \
  case i:                                             \
    conv_backward_both(l, SHAPE[i], x, i ? dx : 0);   \
    break;
    FOR_EACH_LAYER(DO)
#undef DO
  }
  if (pooled) pool_backward(l[-1].shape, l[-1].norm_out, dx, dnorm_of(n, block));
}

// ---- normalization -----------------------------------------------------------------------------
// x is `norm_in` and y the normalized output: y = xhat·scale + shift, xhat = (x − mean)·rstd.
// Moments are taken of units: channels or, for normalization over the last axis alone, rows.

static const float EPSILON = 1e-5f, MOMENTUM = 0.1f;  // PyTorch's

INLINE int unit_size(const Layer *l) { return l->shape.out * plane(l->shape) / l->units; }
// Which unit a row of a channel is in.
INLINE int unit_of(const Layer *l, const Shape s, int c, int row) {
  return l->norm == ROW ? c * s.side + row : c;
}
// Whether scales go along with the elements of a row, and are not the same for all of a channel.
INLINE int scales_elements(const Layer *l) { return l->norm == ELEMENT || l->norm == ROW; }
// Where the scales of a row of a channel begin, among A.
INLINE int scale_of(const Layer *l, const Shape s, int c, int row) {
  return l->norm == ROW ? 0 : l->norm == ELEMENT ? (c * s.side + row) * s.side : c;
}

// The mean of `size` values x, and the sum of squared deviations from it. They are summed as they
// are, or as what they differ by from `near`: then equal ones have a deviation of exactly 0.
INLINE void moments_of(const vec *x, const int size, const vec near, vec *mean, vec *squares) {
  vec s0 = zero(), s1 = zero();
  for (int i = 0; i < size - 1; i += 2) s0 += x[i] - near, s1 += x[i + 1] - near;
  if (size % 2) s0 += x[size - 1] - near;
  const vec m = near + (s0 + s1) / (float)size;
  s0 = s1 = zero();
  for (int i = 0; i < size - 1; i += 2) {
    const vec d0 = x[i] - m, d1 = x[i + 1] - m;
    s0 = fused(d0, d0, s0), s1 = fused(d1, d1, s1);
  }
  if (size % 2) s0 = fused(x[size - 1] - m, x[size - 1] - m, s0);
  *mean = m, *squares = s0 + s1;
}

// Moments of each unit of a block, B (U): its mean, and the sum of squared deviations from it,
// which stays where `rstd` belongs until one of the functions below makes that of it. Rows of a
// digit's background are of equal values, and a ReLU after their normalization would go by the sign
// of what rounding leaves of them.
static void moments(const Layer *l, int block) {
  const int size = unit_size(l), first = block * l->units;
  for (int u = first; u < first + l->units; u++) {
    const vec *x = l->norm_in + u * size;
    if (l->norm == ROW)
      moments_of(x, size, x[0], l->mean + u, l->rstd + u);
    else
      moments_of(x, size, zero(), l->mean + u, l->rstd + u);
  }
}

// Group and layer norm: mean and rstd over the units of a group, (U), from their moments; for the
// one block there is.
static void group_statistics(const Layer *l) {
  vec *mean = l->mean, *rstd = l->rstd;
  const int size = l->units / l->groups;
  const float p = (float)unit_size(l);
  for (int g = 0; g < l->units; g += size) {
    vec m = zero(), squares = zero();
    for (int u = g; u < g + size; u++) m += mean[u];
    m /= (float)size;
    for (int u = g; u < g + size; u++) {
      const vec d = mean[u] - m;
      squares += fused(d * d, broadcast(p), rstd[u]);
    }
    const vec r = 1 / square_root(squares / (p * (float)size) + EPSILON);
    for (int u = g; u < g + size; u++) mean[u] = m, rstd[u] = r;
  }
}

// Batch norm in training: mean and rstd of each channel over all images of the batch, the same for
// all blocks, B (O), from the moments, in double precision. Updates the running ones, (O).
static void batch_statistics(const Layer *l, int count) {
  const int out = l->shape.out, blocks = (count + LANES - 1) / LANES;
  const double p = plane(l->shape), size = p * count;
  for (int c = 0; c < out; c++) {
    double mean = 0, squares = 0;
    for (int i = 0; i < count; i++) mean += lane(l->mean + i / LANES * out + c, i % LANES);
    mean /= count;
    for (int i = 0; i < count; i++) {
      const double d = lane(l->mean + i / LANES * out + c, i % LANES) - mean;
      squares += lane(l->rstd + i / LANES * out + c, i % LANES) + d * d * p;
    }
    const float rstd = (float)(1 / __builtin_sqrt(squares / size + EPSILON));
    for (int b = 0; b < blocks; b++) {
      l->mean[b * out + c] = broadcast((float)mean);
      l->rstd[b * out + c] = broadcast(rstd);
    }
    l->running_mean[c] += MOMENTUM * ((float)mean - l->running_mean[c]);
    // A single value, of one image whose plane is one pixel, says nothing of a variance.
    if (size > 1)
      l->running_variance[c] += MOMENTUM * ((float)(squares / (size - 1)) - l->running_variance[c]);
  }
}

// Batch norm in evaluation: mean and rstd of each channel, (O), are the running ones.
static void running_statistics(const Layer *l) {
  for (int c = 0; c < l->shape.out; c++) {
    l->mean[c] = broadcast(l->running_mean[c]);
    l->rstd[c] = 1 / square_root(broadcast(l->running_variance[c] + EPSILON));
  }
}

// Normalize a block, and ReLU where that comes after: `norm_in` (O, S, S) to y (O, S, S), which has
// a frame of `pad` zeros.
INLINE void normalize(const Layer *l, const Shape s, int block, vec *y, const int pad) {
  const int side = s.side, p = side * side, to_side = side + 2 * pad;
  const int rectify = l->norm_first, elements = scales_elements(l);
  for (int c = 0; c < s.out; c++) {
    const vec *x = l->norm_in + (block * s.out + c) * p;
    vec *t = y + c * to_side * to_side + pad * (to_side + 1);
    for (int row = 0; row < side; row++) {
      const int unit = block * l->units + unit_of(l, s, c, row), first = scale_of(l, s, c, row);
      const vec mean = l->mean[unit], rstd = l->rstd[unit];
      const float *scale = l->scale + first, *shift = l->shift + first;
      const vec factor = rstd * scale[0], addend = shift[0] - mean * factor;
      for (int column = 0; column < side; column++) {
        const vec v = x[row * side + column];
        const vec r =
            elements ? fused((v - mean) * rstd, broadcast(scale[column]), broadcast(shift[column]))
                     : fused(v, factor, addend);
        t[row * to_side + column] = rectify ? larger(r, zero()) : r;
      }
    }
  }
}

// Normalization, ReLU where that comes after, and pool of a block: `norm_in` (O, S, S) to the next
// layer's `input` in its frame of zeros or, of the last layer, to `features` (O, H, H).
static void norm_forward(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int last = layer == LAYERS - 1, pad = last ? 0 : l[1].shape.pad;
  vec *y = last ? n->features : l[1].input;
  switch (layer) {
#define DO(i)                                                                         \
  case i:                                                                             \
    if (SHAPE[i].pool)                                                                \
      normalize(l, SHAPE[i], block, l->norm_out, 0),                                  \
          pool_forward(SHAPE[i], l->norm_out, y, pad);                                \
    else                                                                              \
      normalize(l, SHAPE[i], block, y, SHAPE[i < LAYERS - 1 ? i + 1 : i].pad * !last); \
    break;
    FOR_EACH_LAYER(DO)
#undef DO
  }
}

// A block back through a ReLU that comes after the normalization: its `dnorm` (O, S, S) becomes 0
// where that gave 0.
static void relu_backward(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int side = l->shape.side, out_of_frame = l->shape.pool || layer == LAYERS - 1;
  const int pad = out_of_frame ? 0 : l[1].shape.pad, y_side = side + 2 * pad;
  const vec *y = (out_of_frame ? l->norm_out : l[1].input) + pad * (y_side + 1);
  vec *dy = dnorm_of(n, block);
  for (int c = 0; c < l->shape.out; c++, y += y_side * y_side)
    for (int row = 0; row < side; row++)
      for (int column = 0; column < side; column++, dy++)
        *dy = choose(y[row * y_side + column] > zero(), *dy, zero());
}

// From a block's `dnorm` (O, S, S), here dy: adds Σ dy and Σ dy·xhat to the gradients of shift and
// scale, (A), and leaves each unit's Σ scale·dy and Σ scale·dy·xhat where their means belong, (U),
// until one of the two functions after this one makes these of them.
static void norm_backward_sums(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int size = unit_size(l), elements = scales_elements(l);
  if (l->norm_first) relu_backward(n, layer, block);
  for (int u = 0; u < l->units; u++) {
    const int at = block * l->units + u, first = l->norm == ROW ? 0 : elements ? u * size : u;
    const vec *x = l->norm_in + at * size, *dy = dnorm_of(n, block) + u * size;
    const vec mean = l->mean[at], rstd = l->rstd[at];
    quarter *dscale = l->dscale_lanes + first, *dshift = l->dshift_lanes + first;
    const float *scale = l->scale + first;
    vec sum = zero(), product = zero();
    if (elements) {
      for (int i = 0; i < size; i++) {
        const vec dy_xhat = dy[i] * ((x[i] - mean) * rstd), factor = broadcast(scale[i]);
        dshift[i] += fold(dy[i]), dscale[i] += fold(dy_xhat);
        sum = fused(dy[i], factor, sum), product = fused(dy_xhat, factor, product);
      }
      l->mean_dy[u] = sum, l->mean_dy_xhat[u] = product;
    } else {
      for (int i = 0; i < size; i++) sum += dy[i], product = fused(dy[i], x[i] - mean, product);
      product *= rstd;
      dshift[0] += fold(sum), dscale[0] += fold(product);
      l->mean_dy[u] = sum * scale[0], l->mean_dy_xhat[u] = product * scale[0];
    }
  }
}

// Group and layer norm: a block's sums of each unit, (U), to means over its group.
static void group_means(const Layer *l) {
  const int size = l->units / l->groups;
  const float count = (float)(size * unit_size(l));
  for (int g = 0; g < l->units; g += size) {
    vec sum = zero(), product = zero();
    for (int u = g; u < g + size; u++) sum += l->mean_dy[u], product += l->mean_dy_xhat[u];
    for (int u = g; u < g + size; u++)
      l->mean_dy[u] = sum / count, l->mean_dy_xhat[u] = product / count;
  }
}

// Batch norm: the same means, (O), over all images of the batch, from the gradients of shift and
// scale, which are sums over them.
static void batch_means(const Layer *l, int images) {
  const float count = (float)plane(l->shape) * (float)images;
  for (int c = 0; c < l->shape.out; c++) {
    l->mean_dy[c] = broadcast(sum_quarter(l->dshift_lanes[c]) * l->scale[c] / count);
    l->mean_dy_xhat[c] = broadcast(sum_quarter(l->dscale_lanes[c]) * l->scale[c] / count);
  }
}

// A block's `dnorm` (O, S, S), here dy, to `dconv` in its frame of zeros, (O, G, G):
// rstd·(scale·dy − mean(scale·dy) − xhat·mean(scale·dy·xhat)), and 0 where a ReLU before the
// normalization gave 0. `mask` is 0 in lanes without an image, else 1.
INLINE void normalize_backward(const Network *n, const Layer *l, const Shape s, int block,
                               vec mask) {
  const int side = s.side, p = side * side, to_side = grad_side(s);
  const int rectified = !l->norm_first, step = scales_elements(l);
  for (int c = 0; c < s.out; c++) {
    const vec *x = l->norm_in + (block * s.out + c) * p, *dy = dnorm_of(n, block) + c * p;
    vec *dx = l->dconv + c * to_side * to_side + grad_frame(s) * (to_side + 1);
    for (int row = 0; row < side; row++) {
      const int unit = unit_of(l, s, c, row), at = block * l->units + unit;
      const vec mean = l->mean[at], rstd = l->rstd[at] * mask;
      const vec offset = -l->mean_dy[unit], slope = -(l->mean_dy_xhat[unit] * l->rstd[at]);
      const float *scale = l->scale + scale_of(l, s, c, row);
      for (int column = 0; column < side; column++) {
        const int i = row * side + column;
        const vec dxhat = fused(dy[i], broadcast(scale[column * step]), offset);
        const vec d = rstd * fused(x[i] - mean, slope, dxhat);
        dx[row * to_side + column] = rectified ? choose(x[i] > zero(), d, zero()) : d;
      }
    }
  }
}

// A block back through a layer's normalization, and a ReLU before it: `dnorm` to `dconv`.
static void norm_backward(const Network *n, int layer, int block, vec mask) {
  const Layer *l = n->layer + layer;
  switch (layer) {
#define DO(i)                                            \
  case i:                                                \
    normalize_backward(n, l, SHAPE[i], block, mask);     \
    break;
    FOR_EACH_LAYER(DO)
#undef DO
  }
}

// ---- head: average, linear layer and loss ------------------------------------------------------

// A block's average over the plane and linear layer: `features` (O, H, H) to their averages f (O)
// and the logits (LANES, CLASSES).
static void head_forward(const Network *n, vec *f, float *logits) {
  const Shape s = SHAPE[LAYERS - 1];
  const int size = pooled_side(s) * pooled_side(s);
  for (int c = 0; c < s.out; c++) {
    vec sum = zero();
    for (int i = 0; i < size; i++) sum += n->features[c * size + i];
    f[c] = sum / (float)size;
  }
  for (int k = 0; k < CLASSES; k++) {
    vec y = broadcast(n->bias[k]);
    for (int c = 0; c < s.out; c++) y = fused(f[c], broadcast(n->weight[k * s.out + c]), y);
    for (int i = 0; i < LANES; i++) logits[i * CLASSES + k] = lane(&y, i);
  }
}

// The gradient of a block's logits, (CLASSES), through the head: adds those of its weights and
// writes that of the last layer's normalized output, `dnorm` (O, S, S).
static void head_backward(const Network *n, int block, const vec *f, const vec *dlogits) {
  const Shape s = SHAPE[LAYERS - 1];
  const int size = pooled_side(s) * pooled_side(s);
  for (int k = 0; k < CLASSES; k++) {
    n->dbias_lanes[k] += dlogits[k];
    for (int c = 0; c < s.out; c++) {
      vec *sum = n->dweight_lanes + k * s.out + c;
      *sum = fused(dlogits[k], f[c], *sum);
    }
  }
  vec *dx = s.pool ? n->dpooled : dnorm_of(n, block);
  for (int c = 0; c < s.out; c++) {
    vec d = zero();
    for (int k = 0; k < CLASSES; k++) d = fused(dlogits[k], broadcast(n->weight[k * s.out + c]), d);
    d /= (float)size;
    for (int i = 0; i < size; i++) dx[c * size + i] = d;
  }
  if (s.pool) pool_backward(s, n->layer[LAYERS - 1].norm_out, dx, dnorm_of(n, block));
}

// An image's cross-entropy, added to the job's loss, and whether its label has the first largest of
// the logits y (CLASSES). Its softmax is e (CLASSES) divided by what is returned.
INLINE double cross_entropy(Job *job, const float *y, int label, double *e) {
  int best = 0;
  for (int k = 1; k < CLASSES; k++)
    if (y[k] > y[best]) best = k;
  double sum = 0;
  for (int k = 0; k < CLASSES; k++) sum += e[k] = exponential((double)y[k] - (double)y[best]);
  job->loss += logarithm(sum) + ((double)y[best] - (double)y[label]);
  job->correct += best == label;
  return sum;
}

// The losses of a block's first `lanes` images, from logits (LANES, CLASSES) and labels (lanes),
// and the gradient of their sum divided by `count`: dlogits (CLASSES), 0 in the other lanes.
static void loss_backward(Job *job, const float *logits, const uint8_t *labels, int lanes,
                          int count, vec *dlogits) {
  float d[CLASSES][LANES];
  __builtin_memset(d, 0, sizeof d);
  for (int i = 0; i < lanes; i++) {
    double e[CLASSES];
    const double sum = cross_entropy(job, logits + i * CLASSES, labels[i], e);
    for (int k = 0; k < CLASSES; k++)
      d[k][i] = (float)((e[k] / sum - (k == labels[i])) * (1.0 / count));
  }
  __builtin_memcpy(dlogits, d, sizeof d);
}

// ---- a step ------------------------------------------------------------------------------------
// `count` images of a batch, `blocks` blocks of them at a time.

INLINE int lanes_left(int64_t count, int64_t first) {
  return count - first < LANES ? (int)(count - first) : LANES;
}

// Packs the weights as they are now, and begins all sums over the batch with zero.
static void begin_step(const Network *n) {
  for (int i = 0; i < LAYERS; i++) {
    const Layer *l = n->layer + i;
    pack(l), pack_transposed(l);
    __builtin_memset(l->dweight_lanes, 0, sizeof(vec) * (size_t)weights(l->shape));
    __builtin_memset(l->dscale_lanes, 0, sizeof(quarter) * (size_t)l->scales);
    __builtin_memset(l->dshift_lanes, 0, sizeof(quarter) * (size_t)l->scales);
  }
  const int out = SHAPE[LAYERS - 1].out;
  __builtin_memset(n->dweight_lanes, 0, sizeof(vec) * CLASSES * (size_t)out);
  __builtin_memset(n->dbias_lanes, 0, sizeof(vec) * CLASSES);
}

// Layer by layer, from the images to `norm_in` and statistics of the last layer: each block goes
// through the normalization before and the convolution, until the next statistics are complete.
static void forward(const Network *n, int blocks, int count) {
  for (int i = 0; i < LAYERS; i++) {
    const Layer *l = n->layer + i;
    for (int b = 0; b < blocks; b++) {
      if (i > 0) norm_forward(n, i - 1, b);
      conv_forward(n, i, b);
      moments(l, b);
    }
    if (l->norm == BATCH)
      batch_statistics(l, count);
    else
      group_statistics(l);
  }
}

// The last layer's normalization, the head, the loss and back to that layer's `dnorm`, block by
// block. `order` (count) are the batch's images, of which these blocks begin with number `first`.
static void forward_and_backward_head(const Network *n, Job *job, const int64_t *order, int first,
                                      int blocks, int count) {
  for (int b = 0; b < blocks; b++) {
    const int start = first + b * LANES, lanes = lanes_left(count, start);
    uint8_t labels[LANES];
    for (int i = 0; i < lanes; i++) labels[i] = job->labels[order[start + i]];
    vec f[SHAPE[LAYERS - 1].out], dlogits[CLASSES];
    float logits[LANES * CLASSES];
    norm_forward(n, LAYERS - 1, b);
    head_forward(n, f, logits);
    loss_backward(job, logits, labels, lanes, count, dlogits);
    head_backward(n, b, f, dlogits);
    norm_backward_sums(n, LAYERS - 1, b);
  }
}

// Layer by layer back, as `forward`. With several blocks a layer's input holds the last one's, and
// is made again.
static void backward(const Network *n, int first, int blocks, int count) {
  for (int i = LAYERS - 1; i >= 0; i--) {
    const Layer *l = n->layer + i;
    if (l->norm == BATCH)
      batch_means(l, count);
    else
      group_means(l);
    for (int b = 0; b < blocks; b++) {
      norm_backward(n, i, b, lane_mask(lanes_left(count, first + b * LANES)));
      if (i > 0 && blocks > 1) norm_forward(n, i - 1, b);
      conv_backward(n, i, b);
      if (i > 0) norm_backward_sums(n, i - 1, b);
    }
  }
}

// Sums of lanes, (count), to one gradient each.
static void sum_gradients(const vec *lanes, float *gradient, int count) {
  for (int i = 0; i < count; i++) gradient[i] = sum_lanes(lanes[i]);
}

// Gradients of the mean loss of `count` images `order` (count) under their `maps` (count, 2, 3).
static void step(const Network *n, Job *job, const int64_t *order, const float *maps, int count) {
  begin_step(n);
  const int blocks = n->layer[0].norm == BATCH ? (count + LANES - 1) / LANES : 1;
  for (int first = 0; first < count; first += blocks * LANES) {
    for (int b = 0; b < blocks; b++) {
      const int start = first + b * LANES;
      warp(n, job->images, order + start, maps + 6 * start, lanes_left(count, start),
           input_of(n, 0, b));
    }
    forward(n, blocks, count);
    forward_and_backward_head(n, job, order, first, blocks, count);
    backward(n, first, blocks, count);
  }
  for (int i = 0; i < LAYERS; i++) {
    const Layer *l = n->layer + i;
    sum_gradients(l->dweight_lanes, l->dweight, weights(l->shape));
    for (int k = 0; k < l->scales; k++) l->dscale[k] = sum_quarter(l->dscale_lanes[k]);
    for (int k = 0; k < l->scales; k++) l->dshift[k] = sum_quarter(l->dshift_lanes[k]);
  }
  sum_gradients(n->dweight_lanes, n->dweight, CLASSES * SHAPE[LAYERS - 1].out);
  sum_gradients(n->dbias_lanes, n->dbias, CLASSES);
}

// SGD with momentum, as PyTorch has it, on the gradient and that of l1·Σ|p|.
static void update(const Network *n, const Job *job) {
  const vec lr = broadcast(-job->lr), momentum = broadcast(job->momentum), l1 = broadcast(job->l1);
  for (int64_t i = 0; i < (n->count + LANES - 1) / LANES; i++) {
    const vec p = n->parameters[i];
    const vec g = n->gradients[i] + choose(p > zero(), l1, choose(p < zero(), -l1, zero()));
    const vec v = fused(momentum, n->velocity[i], g);
    n->velocity[i] = v;
    n->parameters[i] = fused(lr, job->nesterov ? fused(momentum, v, g) : v, p);
  }
}

// ---- what Python calls -------------------------------------------------------------------------

// Which known answers were seen to come out, a bit for each: Python's, once per process.
int checked;

int64_t job_size(void) { return sizeof(Job); }

// Bytes of memory, from a multiple of 64 on, that `train` or, without a velocity, `predict` needs.
int64_t memory_for(const Job *job) {
  Network n = {0};
  return lay_out(&n, job, blocks_of(job), 0);
}

// One epoch: a step for every `batch_size` images of `order`, the last as many as are left.
// Changes parameters, velocity and running statistics; adds to loss and correct.
void train(Job *job) {
  const uint64_t before = set_float_mode();
  Network n;
  set_up(&n, job);
  __builtin_memcpy(n.velocity, job->velocity, sizeof(float) * (size_t)n.count);
  for (int64_t first = 0; first < job->count; first += job->batch_size) {
    const int64_t left = job->count - first;
    step(&n, job, job->order + first, job->maps + 6 * first,
         (int)(left < job->batch_size ? left : job->batch_size));
    update(&n, job);
  }
  __builtin_memcpy(job->parameters, n.parameters, sizeof(float) * (size_t)n.count);
  __builtin_memcpy(job->velocity, n.velocity, sizeof(float) * (size_t)n.count);
  restore_float_mode(before);
}

// Logits (count, CLASSES) of the images in `order`, in evaluation mode.
void predict(Job *job) {
  const uint64_t before = set_float_mode();
  Network n;
  set_up(&n, job);
  for (int i = 0; i < LAYERS; i++) pack(n.layer + i);
  for (int64_t first = 0; first < job->count; first += LANES) {
    const int lanes = lanes_left(job->count, first);
    warp(&n, job->images, job->order + first, 0, lanes, n.layer[0].input);
    for (int i = 0; i < LAYERS; i++) {
      const Layer *l = n.layer + i;
      conv_forward(&n, i, 0);
      if (l->norm == BATCH)
        running_statistics(l);
      else
        moments(l, 0), group_statistics(l);
      norm_forward(&n, i, 0);
    }
    vec f[SHAPE[LAYERS - 1].out];
    float logits[LANES * CLASSES];
    head_forward(&n, f, logits);
    __builtin_memcpy(job->logits + first * CLASSES, logits,
                     sizeof(float) * CLASSES * (size_t)lanes);
  }
  restore_float_mode(before);
}

// Softmax of the logits, both (count, CLASSES); adds to loss and correct.
void score(Job *job) {
  const uint64_t before = set_float_mode();
  for (int64_t i = 0; i < job->count; i++) {
    double e[CLASSES];
    const double sum = cross_entropy(job, job->logits + i * CLASSES, job->labels[i], e);
    for (int k = 0; k < CLASSES; k++)
      job->probabilities[i * CLASSES + k] = (float)(e[k] / sum);
  }
  restore_float_mode(before);
}
