"""Intrinsic functions, each as its page of the reference has it."""

from __future__ import annotations

import pytest

from bridge.local.intrinsics import Resolver

DOCUMENT = {
    "Parameters": {
        "Stage": {"Type": "String", "Default": "dev"},
        "Count": {"Type": "Number", "Default": 3},
        "Zones": {"Type": "CommaDelimitedList", "Default": "a, b"},
        "Needed": {"Type": "String"},
        "Stored": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/name/of/it"},
    },
    "Mappings": {"Sizes": {"dev": {"memory": 128}}},
    "Conditions": {
        "IsDev": {"Fn::Equals": [{"Ref": "Stage"}, "dev"]},
        "IsProd": {"Fn::Not": [{"Condition": "IsDev"}]},
        "Both": {"Fn::And": [{"Condition": "IsDev"}, {"Condition": "IsProd"}]},
        "Either": {"Fn::Or": [{"Condition": "IsDev"}, {"Condition": "IsProd"}]},
        "Itself": {"Condition": "Itself"},
    },
    "Resources": {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": "${Stage}-jobs"}}},
        "Topic": {"Type": "AWS::SNS::Topic"},
        "Hello": {"Type": "AWS::Serverless::Function", "Properties": {"FunctionName": "hello"}},
        "Loop": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Ref": "Loop"}}},
        "Other": {"Type": "Custom::Thing"},
    },
}
ACCOUNT = "111122223333"


@pytest.fixture
def resolver():
    return Resolver(DOCUMENT, {}, region="eu-west-1", account_id=ACCOUNT)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ({"Ref": "Stage"}, "dev"),
        ({"Ref": "Count"}, 3),
        ({"Ref": "Zones"}, ["a", "b"]),
        ({"Ref": "AWS::Region"}, "eu-west-1"),
        ({"Ref": "AWS::AccountId"}, ACCOUNT),
        ({"Ref": "AWS::NoValue"}, None),
        ({"Ref": "Hello"}, "hello"),
        ({"Ref": "Queue"}, f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/dev-jobs"),
        ({"Ref": "Topic"}, f"arn:aws:sns:eu-west-1:{ACCOUNT}:Topic"),
        ({"Ref": "Other"}, "Other"),
        ({"Ref": "Loop"}, "Loop"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, f"arn:aws:sqs:eu-west-1:{ACCOUNT}:dev-jobs"),
        ({"Fn::GetAtt": ["Queue", "QueueName"]}, "dev-jobs"),
        ({"Fn::GetAtt": ["Hello", "Arn"]}, f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello"),
        (
            {"Fn::Sub": "a-${Stage}-${Hello.Arn}-${!kept}"},
            f"a-dev-arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello-${{kept}}",
        ),
        ({"Fn::Sub": ["${x}/${Stage}", {"x": {"Ref": "Count"}}]}, "3/dev"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Stage"}, 1]]}, "a-dev-1"),
        ({"Fn::Join": [",", {"Ref": "Zones"}]}, "a,b"),
        ({"Fn::Select": [1, {"Ref": "Zones"}]}, "b"),
        ({"Fn::Select": ["0", {"Fn::Split": ["/", "x/y"]}]}, "x"),
        ({"Fn::Split": ["/", "x/y"]}, ["x", "y"]),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Stage"}, "memory"]}, 128),
        ({"Fn::Base64": "text"}, "dGV4dA=="),
        ({"Fn::GetAZs": ""}, ["eu-west-1a", "eu-west-1b", "eu-west-1c"]),
        ({"Fn::If": ["IsDev", "yes", "no"]}, "yes"),
        ({"Fn::If": ["IsProd", "yes", {"Ref": "AWS::NoValue"}]}, None),
        ({"Fn::If": ["Both", "yes", "no"]}, "no"),
        ({"Fn::If": ["Either", "yes", "no"]}, "yes"),
        ({"Fn::If": ["Itself", "yes", "no"]}, "no"),
        ({"Fn::If": ["Unknown", "yes", "no"]}, "no"),
        ({"a": [{"Ref": "AWS::NoValue"}, {"Ref": "Stage"}], "b": {"Ref": "AWS::NoValue"}}, {"a": ["dev"]}),
        ("plain", "plain"),
    ],
)
def test_an_expression_has_its_value(resolver, expression, value):
    assert resolver.resolve(expression, "Hello", "Key") == value
    assert resolver.unresolved == []


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ({"Ref": "Needed"}, "!Ref Needed"),
        ({"Ref": "Stored"}, "!Ref Stored"),
        ({"Fn::GetAtt": ["Other", "Value"]}, "!GetAtt Other.Value"),
        ({"Fn::ImportValue": "shared-vpc"}, "!ImportValue shared-vpc"),
        ({"Fn::FindInMap": ["Sizes", "prod", "memory"]}, "!FindInMap Sizes,prod,memory"),
        ({"Fn::Select": [7, ["a"]]}, "!Select 7,a"),
    ],
)
def test_an_expression_without_a_value_becomes_a_placeholder(resolver, expression, shown):
    value = resolver.resolve(expression, "Hello", "Key")
    assert value == f"<unresolved {shown}>"
    assert resolver.is_unresolved(value)
    assert [(entry.logical_id, entry.key, entry.expression) for entry in resolver.unresolved] == [
        ("Hello", "Key", shown)
    ]


def test_a_placeholder_shows_inside_a_longer_text(resolver):
    value = resolver.resolve({"Fn::Sub": "https://${Needed}/x"}, "Hello", "Key")
    assert value == "https://<unresolved !Ref Needed>/x"
    assert resolver.is_unresolved(value)


def test_a_given_parameter_goes_before_its_default():
    resolver = Resolver(
        DOCUMENT, {"Stage": "prod", "Needed": "n", "Stored": "s"}, region="eu-west-1", account_id=ACCOUNT
    )
    assert [resolver.resolve({"Ref": name}, "", "") for name in ("Stage", "Needed", "Stored")] == ["prod", "n", "s"]
    assert resolver.holds("IsProd")
    assert not resolver.holds("IsDev")
    assert resolver.holds(None)
