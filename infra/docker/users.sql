CREATE TABLE public.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text,
    email text,
    plan text NOT NULL DEFAULT 'free'
);
