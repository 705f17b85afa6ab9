/* Kernel rows and biases along a few features: what a metric of the controls consists of.

   At a level Psi is [y, k], or [y and then the bias, k]; a kernel is [y, x], a bias [x], a
   coordinate [x, k], and at every node x there is a matrix M. */

#include <stddef.h>

#include "products.h"

typedef struct {
    long first, last; /* levels */
    long nodes, rows; /* x, and y */
    long rank;
    gemm_function gemm;
} size;

#define EACH(i, count) for (long i = 0; i < (count); ++i)

/* Psi of a level; with a bias it has one more row than the kernel. */
static const REAL *features(const size *of, const REAL *psi, const REAL *kernel, const REAL *bias,
                            long l)
{
    return psi + l * ((kernel != NULL ? of->rows : 0) + (bias != NULL)) * of->rank;
}

/* y = Psi' (kernel, bias). */
void along_features(const size *of, const REAL *kernel, const REAL *bias, const REAL *psi, REAL *y)
{
    const long n = of->nodes, N = of->rows, R = of->rank;
    for (long l = of->first; l < of->last; ++l) {
        const REAL *at = features(of, psi, kernel, bias, l);
        REAL *to = y + l * n * R;
        if (bias != NULL) {
            const REAL *last = at + (kernel != NULL ? N : 0) * R;
            EACH(x, n) EACH(k, R) to[x * R + k] = bias[l * n + x] * last[k];
        }
        if (kernel != NULL) {
            const matrix rows = {kernel + l * N * n, 1, n}, B = {at, R, 1};
            product(of->gemm, n, R, N, 1, rows, B, bias != NULL, to, R);
        }
    }
}

/* z = M y. */
void times_matrices(const size *of, const REAL *M, const REAL *y, REAL *z)
{
    const long R = of->rank;
    for (long i = of->first * of->nodes; i < of->last * of->nodes; ++i) {
        const REAL *m = M + i * R * R;
        EACH(k, R) {
            REAL sum = 0;
            EACH(j, R) sum += m[k * R + j] * y[i * R + j];
            z[i * R + k] = sum;
        }
    }
}

/* (kernel, bias) += Psi (M' z - y); without M, Psi (z - y). room: nodes rank. */
void move_along_features(const size *of, REAL *kernel, REAL *bias, const REAL *psi, const REAL *M,
                         const REAL *z, const REAL *y, REAL *room)
{
    const long n = of->nodes, N = of->rows, R = of->rank;
    for (long l = of->first; l < of->last; ++l) {
        const REAL *at = features(of, psi, kernel, bias, l);
        const REAL *last = at + (kernel != NULL ? N : 0) * R;
        EACH(x, n) {
            const long i = l * n + x;
            REAL *restrict to = room + x * R;
            EACH(k, R) to[k] = (M == NULL ? z[i * R + k] : 0) - y[i * R + k];
            if (M != NULL)
                EACH(j, R) EACH(k, R) to[k] += M[(i * R + j) * R + k] * z[i * R + j];
            if (bias != NULL)
                EACH(k, R) bias[l * n + x] += to[k] * last[k];
        }
        if (kernel != NULL) {
            const matrix A = {at, R, 1}, change = {room, 1, R};
            product(of->gemm, N, n, R, 1, A, change, 1, kernel + l * N * n, n);
        }
    }
}
