/* L^{-1} with L L' = I + M for many small symmetric matrices M, a vector's lanes of them at a time:
   lane by lane, rows are too short for vectors. */

#include <math.h>
#include <stddef.h>

#include "products.h"

#define EACH(i, count) for (long i = 0; i < (count); ++i)

/* The lower triangles of A by those of L, and these by their inverses; in `bad` the lanes that are
   not positive definite. */
static void invert_factors(long n, vec *restrict A, int *restrict bad)
{
    EACH(k, n) {
        vec *row = A + k * n;
        EACH(lane, WIDTH) {
            const REAL pivot = row[k][lane];
            const int good = pivot > 0 && pivot < INFINITY;
            bad[lane] |= !good;
            row[k][lane] = good ? sqrt(pivot) : 1;
        }
        for (long i = k + 1; i < n; ++i) {
            A[i * n + k] /= row[k];
            for (long j = k + 1; j <= i; ++j)
                A[i * n + j] -= A[i * n + k] * A[j * n + k];
        }
    }
    /* Row i of the inverse from those above; L's own entry k is not needed after its turn. */
    EACH(i, n) {
        vec *row = A + i * n;
        EACH(k, i) {
            const vec factor = row[k];
            row[k] = (vec){0};
            for (long j = 0; j <= k; ++j)
                row[j] -= factor * A[k * n + j];
        }
        const vec inverse = 1 / row[i];
        EACH(j, i) row[j] *= inverse;
        row[i] = inverse;
    }
}

/* out = L^{-1} of the matrices from first to last, n by n each, or I where there is no L.
   room: n n vectors, aligned as they are. */
void inverse_factors(long first, long last, long n, const REAL *M, REAL *out, REAL *room)
{
    vec *A = (vec *)room;
    for (long start = first; start < last; start += WIDTH) {
        const long count = last - start < WIDTH ? last - start : WIDTH;
        int bad[WIDTH] = {0};
        EACH(i, n) EACH(j, i + 1) {
            vec entry = {0};
            EACH(lane, count) entry[lane] = M[((start + lane) * n + i) * n + j];
            A[i * n + j] = i == j ? entry + 1 : entry;
        }
        invert_factors(n, A, bad);
        EACH(lane, count) {
            REAL *X = out + (start + lane) * n * n;
            EACH(i, n) EACH(j, n)
                X[i * n + j] = j > i ? 0 : bad[lane] ? i == j : A[i * n + j][lane];
        }
    }
}
