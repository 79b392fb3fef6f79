-- Creates what a permit allows of a batch, and records its slots, in one statement. p_road: 'slots' (those of p_quota
-- that Redis gave, p_room in all), 'none' (Redis says that no quota is active), 'direct' (slots from the ledger itself).
-- created and duplicates are indexes of offers that are decided; used is how many counted, null where the ledger is full.
-- Error SH001: no such active target. Errors of the ledger: see quota_redis.
--
-- Every expression of PL/pgSQL is made ready anew in each transaction, and every statement too: hence so few of them.
CREATE OR REPLACE FUNCTION shargain_create_offers_v2(
    p_target bigint, p_batch uuid, p_road text, p_quota bigint, p_slots int8multirange, p_room bigint, p_offers jsonb,
    OUT created integer[], OUT duplicates integer[], OUT used bigint,
    OUT quota_id bigint, OUT quota_limit bigint, OUT quota_start timestamptz, OUT quota_end timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_slots int8multirange := p_slots;
    v_room bigint := p_room;
BEGIN
    SELECT q.id, q.max_offers_per_period, q.period_start, q.period_end
    INTO quota_id, quota_limit, quota_start, quota_end
    FROM offers_scrapingtarget t
    LEFT JOIN offers_offerquota q ON q.id = (SELECT a.quota_id FROM offers_offerquota_active_v1(p_target) AS a)
    WHERE t.id = p_target AND t.is_active;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no active target %', p_target USING ERRCODE = 'SH001';
    END IF;
    IF p_road <> 'direct' THEN
        IF quota_id IS DISTINCT FROM p_quota THEN
            RAISE EXCEPTION 'quota % does not rule', coalesce(p_quota::text, 'none') USING ERRCODE = 'QS001';
        END IF;
    ELSIF quota_id IS NOT NULL THEN
        v_slots := quota_redis_take_v3(
            '{namespace}', '{prefix}' || p_target, quota_id, jsonb_array_length(p_offers));
        IF v_slots IS NULL AND quota_id IS DISTINCT FROM (
            SELECT a.quota_id FROM offers_offerquota_active_v1(p_target) AS a
        ) THEN
            RAISE EXCEPTION 'quota % was deleted meanwhile', quota_id USING ERRCODE = 'QS001';
        END IF;
        v_room := coalesce(upper(v_slots) - lower(v_slots), 0);
    END IF;

    -- OFFSET 0 keeps the look-up of a target that statistics do not know on the index.
    WITH known AS MATERIALIZED (
        SELECT g.*, o.batch_id
        FROM jsonb_to_recordset(p_offers) AS g (
            n integer, url text, title text, price numeric, main_image_url text, list_url text,
            metadata jsonb, published_at timestamptz)
        LEFT JOIN LATERAL (
            SELECT x.batch_id FROM offers_offer x WHERE x.target_id = p_target AND x.url = g.url OFFSET 0
        ) o ON true
    ), chosen AS (
        SELECT * FROM known WHERE batch_id IS NULL ORDER BY n LIMIT v_room
    ), inserted AS (
        INSERT INTO offers_offer (target_id, quota_id, batch_id, url, title, price, main_image_url, list_url,
                                  metadata, published_at)
        SELECT p_target, shargain_create_offers_v2.quota_id, p_batch, url, title, price, main_image_url,
               list_url, metadata, published_at
        FROM chosen ORDER BY url
        ON CONFLICT (target_id, url) DO NOTHING
        RETURNING url
    )
    SELECT array_agg(n) FILTER (WHERE i.url IS NOT NULL OR k.batch_id = p_batch),
           array_agg(n) FILTER (WHERE k.batch_id <> p_batch),
           CASE WHEN shargain_create_offers_v2.quota_id IS NULL THEN count(i.url)
                WHEN v_slots IS NULL THEN NULL
                WHEN count(i.url) = 0 THEN 0
                ELSE quota_redis_record_v2(
                    '{namespace}', shargain_create_offers_v2.quota_id, shargain_create_offers_v2.quota_id, v_slots,
                    count(i.url))
           END
    INTO created, duplicates, used
    FROM known k LEFT JOIN inserted i ON i.url = k.url;
END $$;

-- Which offers of a batch exist already, and the version of the target's definitions, of one snapshot.
CREATE OR REPLACE FUNCTION shargain_known_offers_v2(
    p_target bigint, p_batch uuid, p_indexes integer[], p_urls text[],
    OUT created integer[], OUT duplicates integer[], OUT version bigint,
    OUT quota_id bigint, OUT quota_limit bigint, OUT quota_start timestamptz, OUT quota_end timestamptz
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT q.id, q.max_offers_per_period, q.period_start, q.period_end, coalesce((
        SELECT s.version FROM quota_redis_subject s
        WHERE s.namespace = '{namespace}' AND s.subject = '{prefix}' || p_target
    ), 0)
    INTO quota_id, quota_limit, quota_start, quota_end, version
    FROM offers_scrapingtarget t
    LEFT JOIN offers_offerquota q ON q.id = (SELECT a.quota_id FROM offers_offerquota_active_v1(p_target) AS a)
    WHERE t.id = p_target AND t.is_active;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no active target %', p_target USING ERRCODE = 'SH001';
    END IF;
    SELECT array_agg(g.n) FILTER (WHERE o.batch_id = p_batch),
           array_agg(g.n) FILTER (WHERE o.batch_id <> p_batch)
    INTO created, duplicates
    FROM unnest(p_indexes, p_urls) AS g (n, url)
    CROSS JOIN LATERAL (
        SELECT x.batch_id FROM offers_offer x WHERE x.target_id = p_target AND x.url = g.url OFFSET 0
    ) o;
END $$;
