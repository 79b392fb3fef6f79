-- The primitives, version 3. The tables, the errors and the rules of v1.sql hold here too.

-- A quota has few rows: its void ones, and its used ones once they are compacted. A ledger where one quota has nearly
-- all of them would let the planner expect as many of every quota, and read everybody's to find those of one.
ALTER TABLE quota_redis_ledger ALTER COLUMN quota_id SET (n_distinct = -0.5);

-- A gap of p_amount numbers below p_below that ends where a row begins, or at p_below. It is looked for from there down, in
-- strides that double, and then back by halves: so many looks as the logarithm of what was taken from the top, whatever
-- else the ledger has. Where that meets none, all rows are read, and the top of the largest gap is as much as there is,
-- NULL where the ledger is full. A plan of a time when the ledger was small would read all of it: hence the setting.
CREATE OR REPLACE FUNCTION quota_redis_gap_v3(p_namespace text, p_quota bigint, p_amount bigint, p_below bigint)
RETURNS int8range LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    v_end bigint := p_below;
    v_free bigint;
    v_taken bigint := p_below + 1;
    v_met bigint;
    v_stride bigint := 0;
BEGIN
    -- The p_amount numbers below v_free are free; of those below v_taken one is not, or lies above p_below.
    WHILE v_end > p_amount LOOP
        SELECT min(lower(slots)) INTO v_met FROM quota_redis_ledger
        WHERE namespace = p_namespace AND quota_id = p_quota AND slots && int8range(v_end - p_amount, v_end);
        IF v_met IS NULL THEN
            v_free := v_end;
        ELSE
            v_taken := v_met + 1;
        END IF;
        IF v_free + 1 = v_taken THEN
            RETURN int8range(v_free - p_amount, v_free);
        ELSIF v_free IS NOT NULL THEN
            v_end := (v_free + v_taken) / 2;
        ELSE
            v_end := v_met - v_stride;
            v_stride := greatest(p_amount, 2 * v_stride);
        END IF;
    END LOOP;
    RETURN (
        SELECT int8range(greatest(lower(gap), upper(gap) - p_amount), upper(gap))
        FROM unnest(quota_redis_gaps_v1(p_namespace, p_quota) * int8multirange(int8range(1, 4503599627370496))) AS gap
        ORDER BY upper(gap) - lower(gap) DESC LIMIT 1
    );
END $$;

-- quota_redis_take_v1 without reading the whole ledger: from the top of a gap that is large enough, if not the largest.
CREATE OR REPLACE FUNCTION quota_redis_take_v3(
    p_namespace text, p_subject text, p_quota bigint, p_amount bigint
) RETURNS int8multirange LANGUAGE plpgsql AS $$
DECLARE
    v_gap int8range;
BEGIN
    FOR v_look IN 1..2 LOOP
        v_gap := quota_redis_gap_v3(p_namespace, p_quota, p_amount, coalesce(upper(v_gap), 4503599627370496));
        IF v_gap IS NULL THEN
            RETURN NULL;
        END IF;
        IF v_look = 1 THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('quota_redis:' || p_namespace, p_quota));
        END IF;
    END LOOP;
    INSERT INTO quota_redis_mark (namespace, subject) VALUES (p_namespace, p_subject);
    RETURN int8multirange(v_gap);
END $$;
