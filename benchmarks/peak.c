// The most multiply-adds that a processor can do: SUMS registers of WIDTH numbers, which stay in
// them, each with one multiply-add a round. OPAQUE keeps the compiler from knowing what is in a
// register, so that it cannot add several rounds up in advance. bench.py puts WIDTH before this text.

#if defined(__aarch64__)
#define OPAQUE(r) __asm__ volatile("" : "+w"(r))
#else
#define OPAQUE(r) __asm__ volatile("" : "+v"(r))
#endif
#define SUMS 12

typedef float reg __attribute__((vector_size(4 * WIDTH)));

// Multiply-adds of a round.
long products(void) { return SUMS * WIDTH; }

// Does `rounds` rounds; returns what depends on all sums, so that none can be left out.
float peak(long rounds) {
  reg sum[SUMS], factor = (reg){0} + 0.999f;
  for (int i = 0; i < SUMS; i++) sum[i] = (reg){0} + (float)i;
  for (long n = 0; n < rounds; n++) {
    _Pragma("clang loop unroll(full)") for (int i = 0; i < SUMS; i++) {
#if defined(__FMA__) || defined(__aarch64__)
      sum[i] = __builtin_elementwise_fma(sum[i], factor, factor);
#else
      sum[i] = sum[i] * factor + factor;
#endif
      OPAQUE(sum[i]);
    }
  }
  float all = 0;
  for (int i = 0; i < SUMS; i++) all += sum[i][0];
  return all;
}
